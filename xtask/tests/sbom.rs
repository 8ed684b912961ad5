//! The SBOM of the real product against the official CycloneDX schema, which a crate of the registry carries.
//!
//! Needs the packages of the image in the cache or from a mirror, as a build does.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};
use xtask::image::{self, ImageOptions};

/// The schema, its references answered: known licence identifiers; signatures, which we have none of, are anything.
fn validator() -> jsonschema::Validator {
    let schema = std::fs::read_to_string(schema_path()).expect("the schema");
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    let licences: Vec<&str> = spdx::identifiers::LICENSES.iter().map(|licence| licence.name).collect();
    let signature = json!({ "definitions": { "signature": {} } });
    jsonschema::options()
        .with_retriever(Local { licences: json!({ "enum": licences }), signature })
        .build(&schema)
        .expect("a right schema")
}

struct Local {
    licences: Value,
    signature: Value,
}

impl jsonschema::Retrieve for Local {
    fn retrieve(
        &self,
        uri: &jsonschema::Uri<String>,
    ) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        match uri.as_str() {
            uri if uri.contains("spdx") => Ok(self.licences.clone()),
            uri if uri.contains("jsf") => Ok(self.signature.clone()),
            uri => Err(format!("the schema refers to {uri}").into()),
        }
    }
}

fn schema_path() -> String {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let arguments =
        ["metadata", "--locked", "--format-version=1", "--filter-platform=x86_64-unknown-linux-gnu"];
    let output = Command::new(cargo).args(arguments).output().expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("what cargo prints");
    let packages = metadata["packages"].as_array().expect("packages");
    let carrier = packages.iter().find(|package| package["name"] == "serde-cyclonedx").expect("the crate");
    let manifest = carrier["manifest_path"].as_str().expect("a path");
    manifest.replace("Cargo.toml", "schemas/cyclonedx_1_6.json")
}

#[test]
fn the_document_follows_the_schema_and_is_complete() {
    let made = image::sbom(&ImageOptions::default()).expect("an SBOM");
    let document: Value =
        serde_json::from_slice(&std::fs::read(made.document).expect("the document")).expect("JSON");
    let errors: Vec<String> = validator()
        .iter_errors(&document)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
    let components = document["components"].as_array().expect("components");
    for name in ["kontor", "nftables", "libc6", "grub-pc-bin", "grub-efi-amd64-bin", "anyhow", "kontor-dns"] {
        assert!(components.iter().any(|component| component["name"] == name), "{name} is missing");
    }
    assert!(
        components
            .iter()
            .all(|component| component["licenses"].as_array().is_some_and(|all| !all.is_empty()))
    );
    let known: BTreeSet<&str> =
        components.iter().filter_map(|component| component["bom-ref"].as_str()).collect();
    assert_eq!(known.len(), components.len(), "a reference is not unique");
    for dependency in document["dependencies"].as_array().expect("dependencies") {
        for needed in dependency["dependsOn"].as_array().expect("a list") {
            assert!(known.contains(needed.as_str().expect("a text")), "{needed} is not among the components");
        }
    }
}

#[test]
fn the_schema_refuses_what_is_wrong() {
    let wrong = json!({ "bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": [
        { "type": "library", "name": "a", "licenses": [{ "license": { "id": "Expat" } }] },
    ] });
    assert!(!validator().is_valid(&wrong));
}
