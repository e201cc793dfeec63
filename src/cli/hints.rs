//! Renders hints of the library for the command line: settings as options, commands as command lines.

use crate::hint::{Command, Hint, Piece, Setting};

/// Renders a hint as text that names options and commands.
#[must_use]
pub(super) fn rendered(hint: &Hint) -> String {
    let mut text = String::new();
    for piece in hint.pieces() {
        match piece {
            Piece::Text(part) => text.push_str(part),
            Piece::Setting(setting) => text.push_str(option(*setting)),
            Piece::Command(Command::Download(Some(id))) => {
                text.push_str(&format!("`rust-eland download --hub-model-id {id}`"));
            }
            Piece::Command(command) => text.push_str(&format!("`rust-eland {command}`")),
        }
    }
    text
}

/// The option that sets a setting.
#[must_use]
pub(super) fn option(setting: Setting) -> &'static str {
    match setting {
        Setting::Url => "--url",
        Setting::KibanaUrl => "--kibana-url",
        Setting::CloudId => "--cloud-id",
        Setting::Username => "--es-username",
        Setting::Password => "--es-password",
        Setting::PasswordFile => "--es-password-file",
        Setting::ApiKey => "--es-api-key",
        Setting::Token => "--es-token",
        Setting::Header => "--header",
        Setting::CaCertificates => "--ca-certs",
        Setting::CaFingerprint => "--ca-fingerprint",
        Setting::Insecure => "--insecure",
        Setting::ClientCertificate => "--client-cert",
        Setting::ClientKey => "--client-key",
        Setting::ModelId => "--es-model-id",
        Setting::OnConflict => "--on-conflict",
        Setting::ClearPrevious => "--clear-previous",
        Setting::PartSize => "--part-size",
        Setting::Concurrency => "--upload-concurrency",
        Setting::StateDirectory => "--state-dir",
        Setting::Start => "--start",
        Setting::DeploymentId => "--deployment-id",
        Setting::StartTimeout => "--start-timeout",
        Setting::NumberOfAllocations => "--number-of-allocations",
        Setting::ThreadsPerAllocation => "--threads-per-allocation",
        Setting::QueueCapacity => "--queue-capacity",
        Setting::MinAllocations => "--min-allocations",
        Setting::MaxAllocations => "--max-allocations",
        Setting::Priority => "--priority",
        Setting::Force => "--force",
        Setting::RankingConfiguration => "--ltr-config",
        Setting::Data => "--data",
        Setting::CreateEndpoint => "--create-endpoint",
        Setting::InputField => "--input-field",
        Setting::OutputField => "--output-field",
        Setting::Labels => "--labels",
        Setting::HubModelId => "--hub-model-id",
        Setting::Revision => "--revision",
        Setting::HubAccessToken => "--hub-access-token",
        Setting::HubCaCertificates => "--hub-ca-certs",
        Setting::Offline => "--offline",
        Setting::Output => "--output",
        Setting::Bundle => "--bundle",
        Setting::Task => "--task-type",
        Setting::Part => "--part",
        Setting::LoraTask => "--lora-task",
        Setting::MaxInputLength => "--max-model-input-length",
        Setting::Dimensions => "--dimensions",
        Setting::Scripts => "--scripts or --languages",
        Setting::Quantize => "--quantize",
        Setting::QuantizeMinAgreement => "--quantize-min-agreement",
        Setting::TargetAgreement => "--target-agreement",
        Setting::CalibrationTexts => "--calibration-texts",
        Setting::Prompts => "--prompts",
        Setting::IngestPrefix => "--ingest-prefix",
        Setting::SearchPrefix => "--search-prefix",
        Setting::NoVerify => "--no-verify",
        Setting::AllowInexactTokenizer => "--allow-inexact-tokenizer",
        Setting::TargetVersion => "--target-version",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rendered_hint_names_options_and_commands() {
        let hint = Hint::new([
            "Choose another id with ".into(),
            Setting::ModelId.into(),
            ", or run ".into(),
            Command::Status(Some("m".into())).into(),
            ".".into(),
        ]);
        let expected = "Choose another id with --es-model-id, or run `rust-eland status m`.";
        assert_eq!(rendered(&hint), expected);
    }
}
