//! Selections from small repositories.

use super::*;

struct Files(BTreeMap<&'static str, &'static str>);

impl RepositoryContents for Files {
    fn paths(&self) -> BTreeSet<String> {
        self.0.keys().map(|&name| name.to_owned()).collect()
    }

    async fn read(&self, path: &str) -> Result<Vec<u8>, HubError> {
        Ok(self.0[path].as_bytes().to_vec())
    }
}

async fn selected(files: &[(&'static str, &'static str)]) -> Result<Vec<String>, String> {
    let id = "org/name".parse().unwrap();
    let files = Files(files.iter().copied().collect());
    select(&id, &files).await.map(|selected| selected.files).map_err(|error| error.to_string())
}

#[tokio::test]
async fn selection_takes_one_form_of_the_weights_and_no_other_files() {
    let mut files = vec![("config.json", "{}"), ("model.safetensors", ""), ("vocab.txt", "")];
    let expected = ["config.json", "vocab.txt", "model.safetensors"];
    files.extend([
        ("README.md", ""),
        (".gitattributes", ""),
        ("pytorch_model.bin", ""),
        ("tf_model.h5", ""),
        ("flax_model.msgpack", ""),
        ("rust_model.ot", ""),
        ("onnx/model.onnx", ""),
        ("onnx/vocab.txt", ""),
        ("openvino/openvino_model.bin", ""),
        ("model.Q4_K_M.gguf", ""),
        ("optimizer.pt", ""),
        ("training_args.bin", ""),
        ("model.fp16.safetensors", ""),
        ("checkpoint-1/model.safetensors", ""),
    ]);
    assert_eq!(selected(&files).await.unwrap(), expected);
    files.retain(|(name, _)| *name != "model.safetensors");
    let old = selected(&files).await.unwrap();
    assert_eq!(old, ["config.json", "vocab.txt", "pytorch_model.bin"]);
}

#[tokio::test]
async fn selection_follows_indexes_and_modules() {
    let chosen = selected(&[
        (
            "modules.json",
            r#"[{"path": "0_Transformer", "type": "t"}, {"path": "./2_Dense/"}, {"path": "3_Normalize"}]"#,
        ),
        ("0_Transformer/config.json", "{}"),
        ("0_Transformer/vocab.txt", ""),
        ("0_Transformer/sentence_bert_config.json", ""),
        (
            "0_Transformer/model.safetensors.index.json",
            r#"{"weight_map": {"a": "2.st", "b": "1.st", "c": "2.st"}}"#,
        ),
        ("0_Transformer/1.st", ""),
        ("0_Transformer/2.st", ""),
        ("0_Transformer/3.st", ""),
        ("2_Dense/config.json", ""),
        ("2_Dense/model.safetensors", ""),
        ("2_Dense/pytorch_model.bin", ""),
        ("config.json", ""),
    ]);
    assert_eq!(
        chosen.await.unwrap(),
        [
            "modules.json",
            "0_Transformer/config.json",
            "0_Transformer/sentence_bert_config.json",
            "0_Transformer/vocab.txt",
            "2_Dense/config.json",
            "0_Transformer/model.safetensors.index.json",
            "0_Transformer/1.st",
            "0_Transformer/2.st",
            "2_Dense/model.safetensors",
        ]
    );
}

#[tokio::test]
async fn selection_covers_the_layouts_of_sentence_transformers_5_and_model2vec() {
    // SPLADE: a masked language model in the root.
    let splade = [
        ("modules.json", r#"[{"path": ""}, {"path": "1_SpladePooling"}]"#),
        ("config.json", r#"{"model_type": "bert"}"#),
        ("vocab.txt", ""),
        ("model.safetensors", ""),
        ("1_SpladePooling/config.json", "{}"),
    ];
    assert_eq!(
        selected(&splade).await.unwrap(),
        [
            "modules.json",
            "config.json",
            "vocab.txt",
            "1_SpladePooling/config.json",
            "model.safetensors"
        ]
    );
    // A static embedding: a table and a tokenizer, without config.json.
    let embedding = [
        (
            "modules.json",
            r#"[{"path": "0_StaticEmbedding", "type": "sentence_transformers.models.StaticEmbedding"}, {"path": "1_Normalize"}]"#,
        ),
        ("0_StaticEmbedding/model.safetensors", ""),
        ("0_StaticEmbedding/tokenizer.json", ""),
        ("README.md", ""),
    ];
    let expected =
        ["modules.json", "0_StaticEmbedding/tokenizer.json", "0_StaticEmbedding/model.safetensors"];
    assert_eq!(selected(&embedding).await.unwrap(), expected);
    let model2vec = [
        ("modules.json", r#"[{"path": "."}, {"path": "1_Normalize"}]"#),
        ("config.json", r#"{"model_type": "model2vec"}"#),
        ("model.safetensors", ""),
        ("tokenizer.json", ""),
        ("onnx/model.onnx", ""),
    ];
    let expected = ["modules.json", "config.json", "tokenizer.json", "model.safetensors"];
    assert_eq!(selected(&model2vec).await.unwrap(), expected);
    // A router: a table for queries, a transformer for documents.
    let router = [
        ("modules.json", r#"[{"path": "", "type": "sentence_transformers.models.Router"}]"#),
        (
            "router_config.json",
            r#"{"types": {}, "structure": {"query": ["query_0_SparseStaticEmbedding"],
                "document": ["document_0_MLMTransformer", "document_1_SpladePooling"]}}"#,
        ),
        ("query_0_SparseStaticEmbedding/config.json", "{}"),
        ("query_0_SparseStaticEmbedding/idf.json", "{}"),
        ("query_0_SparseStaticEmbedding/tokenizer.json", ""),
        ("document_0_MLMTransformer/config.json", r#"{"model_type": "bert"}"#),
        ("document_0_MLMTransformer/model.safetensors", ""),
        ("document_0_MLMTransformer/tokenizer.json", ""),
        ("document_1_SpladePooling/config.json", "{}"),
    ];
    let id = "org/name".parse().unwrap();
    let chosen = select(&id, &Files(router.into_iter().collect())).await.unwrap();
    assert_eq!(chosen.config.unwrap()["model_type"], "bert");
    let mut expected: Vec<&str> = router.iter().map(|(path, _)| *path).collect();
    let mut files = chosen.files.clone();
    files.sort();
    expected.sort_unstable();
    assert_eq!(files, expected);
    assert_eq!(chosen.files.last().unwrap(), "document_0_MLMTransformer/model.safetensors");
    // BGE-M3: a sparse head beside a dense model.
    let heads = [
        ("config.json", r#"{"model_type": "xlm-roberta"}"#),
        ("tokenizer.json", ""),
        ("pytorch_model.bin", ""),
        ("sparse_linear.pt", ""),
        ("colbert_linear.pt", ""),
    ];
    let expected = ["config.json", "sparse_linear.pt", "tokenizer.json", "pytorch_model.bin"];
    assert_eq!(selected(&heads).await.unwrap(), expected);
    let many: Vec<String> = (0..300).map(|n| format!(r#"{{"path": "{n}"}}"#)).collect();
    let many = format!("[{}]", many.join(","));
    let many = [("config.json", "{}"), ("modules.json", many.leak() as &str)];
    assert!(selected(&many).await.unwrap_err().contains("more than 200 folders"));
    let outside = [("router_config.json", r#"{"structure": {"query": ["../x"]}}"#)];
    assert!(selected(&outside).await.unwrap_err().contains("outside the repository"));
}

#[tokio::test]
async fn selection_of_an_unusable_repository_has_a_reason() {
    let config = ("config.json", "{}");
    let refused = async |files: &[(&'static str, &'static str)], parts: &[&str]| {
        let message = selected(files).await.unwrap_err();
        for part in parts {
            assert!(message.contains(part), "{part:?} is not in: {message}");
        }
    };
    refused(&[("README.md", "")], &["no config.json", "README.md"]).await;
    let gguf = [config, ("x.gguf", ""), ("README.md", "")];
    refused(&gguf, &["no weights in a supported format", "its files are x.gguf"]).await;
    let adapter = ("adapter_config.json", r#"{"base_model_name_or_path": "org/base"}"#);
    let lora = ("adapter_model.safetensors", "");
    refused(&[adapter, lora], &["adapter", "org/base"]).await;
    let modules =
        ("modules.json", r#"[{"path": "", "type": "sentence_transformers.models.Transformer"}]"#);
    refused(&[modules, ("model.safetensors", "")], &["no config.json"]).await;
    refused(&[config, adapter, lora], &["adapter", "org/base"]).await;
    refused(&[("config.json", "[")], &["config.json of org/name is not valid"]).await;
    let out = ("modules.json", r#"[{"path": "../../x"}]"#);
    refused(&[out, config], &["modules.json", "outside the repository"]).await;
    let index = ("model.safetensors.index.json", r#"{"weight_map": {"a": "../x"}}"#);
    refused(&[config, index], &["index.json", "../x"]).await;
}
