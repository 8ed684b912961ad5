//! The parts of an image as a CycloneDX 1.6 document.
//!
//! The same parts give the same bytes: components are sorted, the time is the release's, and the serial number comes
//! from the content.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Sbom;
use super::component::{Component, Kind, Licence};

/// The document, ready to be written.
#[must_use]
pub fn document(sbom: &Sbom) -> String {
    let mut document = body(sbom);
    document["serialNumber"] = format!("urn:uuid:{}", uuid(document.to_string().as_bytes())).into();
    // Serialising a value of ours cannot fail.
    let mut text = serde_json::to_string_pretty(&document).unwrap_or_default();
    text.push('\n');
    text
}

fn body(sbom: &Sbom) -> Value {
    let root = format!("pkg:generic/kontor-{}@{}", sbom.product, sbom.version);
    let mut dependencies = vec![json!({ "ref": root, "dependsOn": sbom.roots })];
    dependencies.extend(
        sbom.components
            .iter()
            .map(|component| json!({ "ref": component.purl, "dependsOn": component.needs })),
    );
    json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "timestamp": format!("{}T00:00:00Z", sbom.date),
            "tools": { "components": [{ "type": "application", "name": "xtask", "version": sbom.version }] },
            "component": {
                "type": "firmware",
                "bom-ref": root,
                "name": format!("kontor-{}", sbom.product),
                "version": sbom.version,
                "purl": root,
            },
        },
        "components": sbom.components.iter().map(component).collect::<Vec<_>>(),
        "dependencies": dependencies,
    })
}

fn component(component: &Component) -> Value {
    let mut value = json!({
        "type": kind(component.kind),
        "bom-ref": component.purl,
        "name": component.name,
        "version": component.version,
        "purl": component.purl,
        "licenses": component.licences.iter().map(licence).collect::<Vec<_>>(),
    });
    if let Some(sha256) = &component.sha256 {
        value["hashes"] = json!([{ "alg": "SHA-256", "content": sha256 }]);
    }
    if let Some(homepage) = &component.homepage {
        value["externalReferences"] = json!([{ "type": "website", "url": homepage }]);
    }
    let texts =
        component.texts.iter().map(|text| ("kontor:licence-text", super::bundle::name_of(&text.bytes)));
    let properties = component.properties.iter().cloned().chain(texts);
    let properties: Vec<Value> =
        properties.map(|(name, value)| json!({ "name": name, "value": value })).collect();
    if !properties.is_empty() {
        value["properties"] = properties.into();
    }
    value
}

fn licence(licence: &Licence) -> Value {
    match licence {
        Licence::Id(id) => json!({ "license": { "id": id } }),
        Licence::Name(name) => json!({ "license": { "name": name } }),
        Licence::Expression(expression) => json!({ "expression": expression }),
    }
}

const fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Application => "application",
        Kind::Library => "library",
        Kind::OperatingSystem => "operating-system",
        Kind::Firmware => "firmware",
    }
}

/// A UUID of version 8 (RFC 9562, section 5.8: the bits are ours to choose) from the content.
fn uuid(content: &[u8]) -> String {
    let mut bytes: [u8; 16] = [0; 16];
    bytes.copy_from_slice(&Sha256::digest(content)[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = crate::archive::hex(&bytes);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sbom::component::Text;

    fn sbom() -> Sbom {
        let component = Component {
            purl: "pkg:deb/debian/a@1?arch=all&distro=trixie".into(),
            kind: Kind::Library,
            name: "a".into(),
            version: "1".into(),
            sha256: Some("00".repeat(32)),
            licences: vec![Licence::Id("MIT".into()), Licence::Name("BSD".into())],
            homepage: None,
            properties: vec![("kontor:debian:source", "a".into())],
            needs: vec![],
            texts: vec![Text { name: "copyright".into(), bytes: b"text".to_vec() }],
        };
        Sbom {
            product: "branch".into(),
            version: "0.1.0".into(),
            date: "2026-11-21".into(),
            roots: vec![component.purl.clone()],
            components: vec![component],
        }
    }

    #[test]
    fn the_document_reads_as_expected() {
        insta::assert_snapshot!(document(&sbom()));
    }

    #[test]
    fn the_serial_number_follows_the_content() {
        let serial =
            |sbom: &Sbom| document(sbom).lines().find(|line| line.contains("urn:uuid")).map(str::to_owned);
        let (first, mut other) = (sbom(), sbom());
        assert_eq!(serial(&first), serial(&sbom()));
        other.components[0].version = "2".into();
        assert_ne!(serial(&first), serial(&other));
    }
}
