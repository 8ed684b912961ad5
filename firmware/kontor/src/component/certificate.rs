//! The certificate by which a component's services are known to TLS clients: signed by its own key, with the names clients use.
//!
//! Made here, and durably, because services that make their own leave an empty file when the power goes, and never start again.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use kontor_sys::file::write_durable;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::elliptic_curve::Generate;
use p256::pkcs8::{DecodePrivateKey, EncodePrivateKey, LineEnding};
use x509_cert::builder::profile::BuilderProfile;
use x509_cert::builder::{Builder, CertificateBuilder};
use x509_cert::certificate::TbsCertificate;
use x509_cert::der::asn1::Ia5String;
use x509_cert::der::{DecodePem, EncodePem};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName};
use x509_cert::ext::{Extension, ToExtension};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::{ObjectIdentifier, SubjectPublicKeyInfo, SubjectPublicKeyInfoRef};
use x509_cert::time::{Time, Validity};
use x509_cert::{Certificate, builder};

/// Files of a directory for TLS: private key (PKCS #8), certificate, and whom clients have to trust, which is the same.
const KEY: &str = "key.pem";
const CERTIFICATES: [&str; 2] = ["cert.pem", "ca.pem"];
/// A box may believe in any time when it makes its certificate, and nobody visits it to renew one.
const VALID: [&str; 2] = ["2024-01-01T00:00:00Z", "2049-12-31T00:00:00Z"];
/// id-kp-serverAuth (RFC 5280, section 4.2.1.12).
const SERVER_AUTH: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");

/// Makes key and certificate for these DNS names in `directory`, unless they are there. With other names the key stays.
///
/// # Errors
/// When they cannot be written.
pub(super) fn ensure_for(directory: &Path, names: &BTreeSet<String>) -> Result<()> {
    let key = read(directory, KEY).and_then(|text| SigningKey::from_pkcs8_pem(&text).ok());
    let is_right = |file: &&str| read(directory, file).is_some_and(|text| is_for(&text, key.as_ref(), names));
    if key.is_some() && CERTIFICATES.iter().all(is_right) {
        return Ok(());
    }
    fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    let key = match key {
        Some(key) => key,
        None => made_key(directory)?,
    };
    let text = certificate(&key, names).context("cannot make a certificate")?;
    for file in CERTIFICATES {
        write(directory, file, text.as_bytes(), 0o644)?;
    }
    println!("made a certificate for {}", names.iter().map(String::as_str).collect::<Vec<_>>().join(", "));
    Ok(())
}

fn read(directory: &Path, file: &str) -> Option<String> {
    fs::read_to_string(directory.join(file)).ok()
}

fn write(directory: &Path, file: &str, content: &[u8], mode: u32) -> Result<()> {
    let path = directory.join(file);
    write_durable(&path, content).with_context(|| path.display().to_string())?;
    // Nobody but root enters the directory: the mode is for those that look at it before they read.
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).with_context(|| path.display().to_string())
}

fn made_key(directory: &Path) -> Result<SigningKey> {
    let key = SigningKey::generate();
    let text = key.to_pkcs8_pem(LineEnding::LF)?;
    write(directory, KEY, text.as_bytes(), 0o600)?;
    Ok(key)
}

/// Whether a certificate is for this key and exactly these names.
fn is_for(text: &str, key: Option<&SigningKey>, names: &BTreeSet<String>) -> bool {
    let Ok(certificate) = Certificate::from_pem(text) else { return false };
    let tbs = certificate.tbs_certificate();
    let expected = key.and_then(|key| SubjectPublicKeyInfo::from_key(key.verifying_key()).ok());
    let found: BTreeSet<String> = match tbs.get_extension::<SubjectAltName>() {
        Ok(Some((_, SubjectAltName(list)))) => list.iter().filter_map(dns_name).collect(),
        _ => return false,
    };
    expected.as_ref() == Some(tbs.subject_public_key_info()) && found == *names
}

fn dns_name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        _ => None,
    }
}

fn certificate(key: &SigningKey, names: &BTreeSet<String>) -> Result<String> {
    // The longest is the most exact; RFC 5280 has no room for more than 64 characters.
    let longest = names.iter().filter(|name| name.len() <= 64).max_by_key(|name| name.len());
    let common_name = longest.context("no name")?;
    ensure!(
        common_name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)),
        "{common_name}"
    );
    let profile = Server { subject: Name::from_str(&format!("CN={common_name}"))?, names };
    let public = SubjectPublicKeyInfo::from_key(key.verifying_key())?;
    let [from, until] = VALID.map(Time::from_str);
    let validity = Validity::new(from?, until?);
    // As random as the key is, and another one for each.
    let mut serial = [0; 16];
    serial.copy_from_slice(&key.verifying_key().to_sec1_point(false).as_bytes()[1..17]);
    serial[0] &= 0x7f;
    let builder = CertificateBuilder::new(profile, SerialNumber::new(&serial)?, validity, public)?;
    let certificate = builder.build::<_, DerSignature>(key)?;
    Ok(certificate.to_pem(LineEnding::LF)?)
}

/// A server that vouches for itself, and for nobody else.
struct Server<'a> {
    subject: Name,
    names: &'a BTreeSet<String>,
}

impl BuilderProfile for Server<'_> {
    fn get_issuer(&self, subject: &Name) -> Name {
        subject.clone()
    }

    fn get_subject(&self) -> Name {
        self.subject.clone()
    }

    fn build_extensions(
        &self,
        _: SubjectPublicKeyInfoRef<'_>,
        _: SubjectPublicKeyInfoRef<'_>,
        tbs: &TbsCertificate,
    ) -> builder::Result<Vec<Extension>> {
        let names: Result<Vec<GeneralName>, _> =
            self.names.iter().map(|name| Ia5String::new(name).map(GeneralName::DnsName)).collect();
        let subject = &tbs.subject();
        let none: &[Extension] = &[];
        Ok(vec![
            BasicConstraints { ca: false, path_len_constraint: None }.to_extension(subject, none)?,
            KeyUsage(KeyUsages::DigitalSignature.into()).to_extension(subject, none)?,
            ExtendedKeyUsage(vec![SERVER_AUTH]).to_extension(subject, none)?,
            SubjectAltName(names?).to_extension(subject, none)?,
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn it_is_made_once_and_anew_for_other_names_or_when_damaged() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("tls");
        let files = || {
            ["key.pem", "cert.pem", "ca.pem"].map(|file| fs::read_to_string(directory.join(file)).unwrap())
        };
        let office = names(&["hq.ad.office.internal", "ad.office.internal"]);
        ensure_for(&directory, &office).unwrap();
        let first = files();
        ensure_for(&directory, &office).unwrap();
        assert_eq!(files(), first);
        assert_eq!(fs::metadata(directory.join(KEY)).unwrap().permissions().mode() & 0o777, 0o600);
        // What a power cut leaves of a file that nobody has synced.
        fs::write(directory.join("cert.pem"), "").unwrap();
        ensure_for(&directory, &office).unwrap();
        assert!(files()[0] == first[0] && files()[1].contains("END CERTIFICATE"));
        ensure_for(&directory, &names(&["hq.ad.office.internal"])).unwrap();
        assert!(files()[0] == first[0] && files()[1] != first[1] && files()[1] == files()[2]);
        fs::write(directory.join("key.pem"), "").unwrap();
        ensure_for(&directory, &office).unwrap();
        assert_ne!(files()[0], first[0]);
    }
}
