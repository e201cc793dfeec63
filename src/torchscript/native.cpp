// Functions of libtorch that tch does not offer: sizes that stay symbolic while tracing, tensors that own their memory, the list of
// operations of a module, 8-bit linear layers, saving to a callback, loading without a copy of the weights, and the peak of live
// bytes during a forward pass. Every function catches C++ exceptions and returns the message (malloc'ed, freed by the caller), or
// null on success.
#include <ATen/native/quantized/PackedParams.h>
#include <caffe2/serialize/inline_container.h>
#include <caffe2/serialize/read_adapter_interface.h>
#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/serialization/export.h>
#include <torch/csrc/jit/serialization/import.h>
#include <torch/csrc/jit/serialization/import_read.h>
#include <torch/csrc/jit/serialization/import_source.h>
#include <torch/csrc/jit/serialization/storage_context.h>
#include <torch/script.h>

#include <cmath>
#include <cstring>

#include "guarded.h"

namespace {

using torch::jit::script::Module;
namespace tracer = torch::jit::tracer;

// Counts the bytes that the CPU allocator allocates and frees on this thread. Memory that was allocated before is also counted when
// it is freed and makes the balance negative, so the peak starts at zero.
struct LiveBytes final : c10::MemoryReportingInfoBase {
  int64_t live = 0;
  int64_t peak = 0;
  void reportMemoryUsage(void*, int64_t size, size_t, size_t, c10::Device) override {
    live += size;
    peak = std::max(peak, live);
  }
  bool memoryProfilingEnabled() const override { return true; }
};

using Visit = void (*)(void* context, const char* kind);

void visit_nodes(torch::jit::Block* block, Visit visit, void* context) {
  for (auto* node : block->nodes()) {
    visit(context, node->kind().toQualString());
    for (auto* inner : node->blocks()) visit_nodes(inner, visit, context);
  }
}

using Packed = c10::intrusive_ptr<LinearPackedParamsBase>;

// Quantizes a weight as torch.ao.quantization.quantize_dynamic does by default: integers from -128 to 127 times the scale of a
// symmetric min/max observer, computed in float32, packed for this machine's kernels.
Packed pack(const at::Tensor& weight, const std::optional<at::Tensor>& bias) {
  const auto [least, most] = at::aminmax(weight);
  const float largest = std::max(-least.item<float>(), most.item<float>());
  TORCH_CHECK(std::isfinite(largest), "a linear layer contains a weight that is not finite");
  const float scale = std::max(largest / 127.5f, std::numeric_limits<float>::epsilon());
  static const auto prepack = c10::Dispatcher::singleton()
                                  .findSchemaOrThrow("quantized::linear_prepack", "")
                                  .typed<Packed(at::Tensor, std::optional<at::Tensor>)>();
  return prepack.call(at::quantize_per_tensor(weight, scale, 0, at::kQInt8), bias);
}

// A tensor that does not depend on the inputs.
std::optional<at::Tensor> constant_tensor(torch::jit::Value* value) {
  const auto constant = torch::jit::toIValue(value);
  if (!constant || !constant->isTensor()) return std::nullopt;
  return constant->toTensor();
}

// An archive in memory, in one or several segments.
struct Archive final : caffe2::serialize::ReadAdapterInterface {
  const void* owner;
  size_t length;
  // The contiguous bytes from a position on, and their number.
  const char* (*from)(const void* owner, size_t at, size_t* length);
  size_t size() const override { return length; }
  size_t read(uint64_t at, void* into, size_t n, const char*) const override {
    size_t done = 0, together = 0;
    while (done < n) {
      const char* bytes = from(owner, at + done, &together);
      if (together == 0) break;
      together = std::min(together, n - done);
      std::memcpy(static_cast<char*>(into) + done, bytes, together);
      done += together;
    }
    return done;
  }
};

// Storage of every constant of a block and its sub-blocks, by address.
void constants_of(torch::jit::Block* block, std::map<const char*, c10::Storage>& found) {
  for (auto* node : block->nodes()) {
    if (node->kind() == torch::jit::prim::Constant) {
      if (const auto tensor = constant_tensor(node->output()); tensor && tensor->has_storage())
        found.emplace(static_cast<const char*>(tensor->storage().data()), tensor->storage());
    }
    for (auto* inner : node->blocks()) constants_of(inner, found);
  }
}

// A copy of `forward` whose linear layers only use the first feature. They create tensors of the same sizes with little work.
std::shared_ptr<torch::jit::Graph> thinned(const Module& module) {
  namespace jit = torch::jit;
  auto graph = module.get_method("forward").graph()->copy();
  jit::Inline(*graph);
  for (auto* node : graph->nodes()) {
    if (node->kind() != jit::aten::linear) continue;
    const auto weight = constant_tensor(node->input(1));
    if (!weight || weight->dim() != 2 || weight->numel() == 0) continue;
    jit::WithInsertPoint here(node);
    node->replaceInput(0, graph->insert(jit::aten::slice, {node->input(0), -1, 0, 1, 1}));
    node->replaceInput(1, graph->insertConstant(weight->narrow(1, 0, 1)));
  }
  return graph;
}

// The bytes of a record as the memory of a tensor, without a copy. `owner` keeps the bytes alive.
c10::Storage storage_over(const char* data, size_t size, const std::shared_ptr<void>& owner) {
  auto release = [](void* owner) { delete static_cast<std::shared_ptr<void>*>(owner); };
  at::DataPtr bytes(const_cast<char*>(data), new std::shared_ptr<void>(owner), release, at::kCPU);
  return c10::Storage(c10::Storage::use_byte_size_t(), size, std::move(bytes), nullptr, false);
}

}  // namespace

extern "C" {

bool re_is_tracing() { return tracer::isTracing(); }

void re_trace_abandon() { tracer::abandon(); }

// Size of an axis as a tensor that the graph computes from `tensor`. Call it only while tracing.
char* re_size_of(const at::Tensor* tensor, int64_t axis, at::Tensor** out) {
  return guarded([&] { *out = new at::Tensor(tracer::getSizeOf(*tensor, axis)); });
}

// Replaces element `index` of the next operation's integer-list argument `argument` (of length `count`) by the recorded `value`.
char* re_stash_size(const char* argument, size_t count, size_t index, const at::Tensor* value) {
  return guarded([&] { tracer::ArgumentStash::stashIntArrayRefElem(argument, count, index, *value); });
}

// Replaces the next operation's scalar argument `argument` by the recorded `value`, an integer.
char* re_stash_scalar(const char* argument, const at::Tensor* value) {
  return guarded([&] { tracer::ArgumentStash::stashValue(argument, 0, *value, c10::IntType::get()); });
}

// A contiguous CPU tensor over foreign memory. `release(owner)` is called when the last tensor that shares it is freed.
char* re_tensor_over(void* data, const int64_t* sizes, size_t rank, int scalar_type, void* owner, void (*release)(void*),
                     at::Tensor** out) {
  return guarded([&] {
    *out = new at::Tensor(torch::from_blob(data, at::IntArrayRef(sizes, rank), [=](void*) { release(owner); },
                                           at::TensorOptions().dtype(static_cast<at::ScalarType>(scalar_type))));
  });
}

// Calls `visit` with the kind of every node of every method, with functions inlined and sub-blocks included, as Elasticsearch does.
char* re_module_operations(const Module* module, Visit visit, void* context) {
  return guarded([&] {
    for (const auto& method : module->get_methods()) {
      auto graph = method.graph()->copy();
      torch::jit::Inline(*graph);
      visit_nodes(graph->block(), visit, context);
    }
  });
}

// Replaces every linear layer of `forward` with a constant weight by one with 8-bit weights that quantizes its input dynamically.
// Counts them in `quantized`, and the unchanged linear layers and convolutions in `kept`. The module must not have run before.
char* re_module_quantize(Module* module, size_t* quantized, size_t* kept) {
  return guarded([&] {
    namespace jit = torch::jit;
    at::NoGradGuard no_grad;
    auto graph = module->get_method("forward").graph();
    jit::WithInsertPoint start(*graph->nodes().begin());
    auto* const reduce_range = graph->insertConstant(true);
    // A layer that is called twice is packed once.
    std::map<std::pair<const void*, const void*>, jit::Value*> packed;
    *quantized = *kept = 0;
    for (auto it = graph->nodes().begin(); it != graph->nodes().end();) {
      auto* const node = *it++;
      const bool is_linear = node->kind() == jit::aten::linear;
      if (!is_linear && node->kind() != jit::aten::_convolution) continue;
      const auto weight = is_linear ? constant_tensor(node->input(1)) : std::nullopt;
      const auto bias = is_linear ? constant_tensor(node->input(2)) : std::nullopt;
      const bool has_bias = is_linear && !node->input(2)->mustBeNone();
      if (!weight || weight->dim() != 2 || weight->scalar_type() != at::kFloat || weight->numel() == 0 || has_bias != bias.has_value()) {
        ++*kept;
        continue;
      }
      auto& layer = packed[{weight->const_data_ptr(), has_bias ? bias->const_data_ptr() : nullptr}];
      if (!layer) {
        layer = graph->insertConstant(c10::IValue(pack(*weight, bias)));
        ++*quantized;
      }
      jit::WithInsertPoint here(node);
      static const auto kind = c10::Symbol::fromQualString("quantized::linear_dynamic");
      auto* const replacement = graph->insertNode(graph->create(kind, {node->input(0), layer, reduce_range}));
      replacement->output()->setType(c10::TensorType::get());
      node->output()->replaceAllUsesWith(replacement->output());
      node->destroy();
    }
    jit::EliminateDeadCode(graph);
    graph->lint();
  });
}

// Loads an archive from memory like torch::jit::load, but without copying its tensors. `from(owner, at, &length)` returns the bytes
// at a position; `release(owner)` is called when the last tensor is freed. `stored` is the total size of the tensors in bytes.
char* re_module_load(size_t size, const char* (*from)(const void*, size_t, size_t*), void* owner, void (*release)(void*), Module** out,
                     uint64_t* stored) {
  return guarded([&] {
    namespace jit = torch::jit;
    const std::shared_ptr<void> bytes(owner, release);
    auto archive = std::make_shared<Archive>();
    archive->owner = owner, archive->length = size, archive->from = from;
    caffe2::serialize::PyTorchStreamReader reader(archive);
    auto unit = std::make_shared<jit::CompilationUnit>();
    std::vector<c10::IValue> constants;
    const auto source = [&](const std::string& qualifier) -> std::shared_ptr<jit::Source> {
      auto path = "code/" + qualifier + ".py";
      std::replace(path.begin() + 5, path.end() - 3, '.', '/');
      if (!reader.hasRecord(path)) return nullptr;
      const auto [text, length] = reader.getRecord(path);
      return std::make_shared<jit::Source>(std::string_view(static_cast<const char*>(text.get()), length), path, 1);
    };
    jit::SourceImporter importer(unit, &constants, source, reader.version());
    const auto resolve = [&](const c10::QualifiedName& name) {
      return c10::StrongTypePtr(unit, importer.loadType(name)->cast<c10::ClassType>());
    };
    *stored = 0;
    const auto read = [&](const std::string& archive) {
      const auto folder = archive + "/";
      auto storages = std::make_shared<jit::DeserializationStorageContext>();
      for (const auto& record : reader.getAllRecords()) {
        if (record.compare(0, folder.size(), folder) != 0) continue;
        const size_t at = reader.getRecordOffset(record), length = reader.getRecordSize(record);
        TORCH_CHECK(at <= size && length <= size - at, "the record ", record, " lies beyond the end");
        *stored += length;
        if (length == 0) continue;
        size_t together = 0;
        const char* data = from(owner, at, &together);
        if (together < length) continue;  // the reader copies what does not lie together
        storages->addStorage(record.substr(folder.size()), storage_over(data, length, bytes));
      }
      return jit::readArchiveAndTensors(archive, "", folder, resolve, jit::ObjLoaderFunc, c10::Device(at::kCPU), reader,
                                        jit::Unpickler::defaultTypeParser, storages);
    };
    constants = read("constants").toTuple()->elements().vec();
    *out = new Module(read("data").toObject());
  });
}

// Writes the module's archive, without checksums, through `write(context, data, size, storage)`, which returns the number of
// accepted bytes. If the bytes are the memory of a constant, `storage` keeps them alive and its ownership is transferred; otherwise
// they are freed after the call.
char* re_module_save(const Module* module, size_t (*write)(void*, const void*, size_t, c10::Storage*), void* context) {
  return guarded([&] {
    std::map<const char*, c10::Storage> constants;
    for (const auto& method : module->get_methods()) constants_of(method.graph()->block(), constants);
    const auto each = [&](const void* data, size_t size) {
      const auto found = constants.find(static_cast<const char*>(data));
      const bool held = found != constants.end() && size <= found->second.nbytes();
      return write(context, data, size, held ? new c10::Storage(found->second) : nullptr);
    };
    caffe2::serialize::PyTorchStreamWriter writer(each, /*compute_crc32=*/false);
    torch::jit::ScriptModuleSerializer serializer(writer);
    serializer.serialize(*module, {}, /*bytecode_format=*/false, /*save_mobile_debug_info=*/false);
    writer.writeEndOfFile();
  });
}

void re_storage_free(c10::Storage* storage) { delete storage; }

// Runs `forward`. Returns the first element of a tuple. With `optimize`, the graph is optimized for later passes, as in a server.
char* re_module_forward(Module* module, const at::Tensor* const* inputs, size_t count, bool optimize, at::Tensor** out) {
  return guarded([&] {
    c10::InferenceMode inference_mode;
    torch::jit::GraphOptimizerEnabledGuard optimizer(optimize);
    std::vector<c10::IValue> arguments;
    for (size_t i = 0; i < count; ++i) arguments.emplace_back(*inputs[i]);
    auto result = module->forward(std::move(arguments));
    if (result.isTuple()) {
      TORCH_CHECK(!result.toTupleRef().elements().empty(), "forward returned an empty tuple");
      result = result.toTupleRef().elements()[0];
    }
    TORCH_CHECK(result.isTensor(), "forward returned ", result.tagKind(), ", not a tensor");
    *out = new at::Tensor(result.toTensor());
  });
}

// Peak size in bytes of the live tensors that `forward` creates. Expensive computations that do not change sizes are skipped.
char* re_module_peak(Module* module, const at::Tensor* const* inputs, size_t count, int64_t* peak) {
  return guarded([&] {
    c10::InferenceMode inference_mode;
    torch::jit::GraphOptimizerEnabledGuard optimizer(false);
    torch::jit::GraphExecutor executor(thinned(*module), "forward");
    auto live = std::make_shared<LiveBytes>();
    c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, live);
    torch::jit::Stack stack{module->_ivalue()};
    for (size_t i = 0; i < count; ++i) stack.emplace_back(*inputs[i]);
    executor.run(stack);
    *peak = live->peak;
  });
}
}
