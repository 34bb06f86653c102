//! Certificates for servers of tests.

use std::{
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown},
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// The files of a server with TLS: its own authority, its certificate, one for clients, and an authority that signed none of them.
#[derive(Debug, Clone)]
pub struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    /// The certificate of the authority that signed the server's: what a client must trust.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        self.read("ca.pem")
    }

    /// The same as a file.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// An authority that has nothing to do with the server: a client that trusts only this one must refuse the server.
    #[must_use]
    pub fn other_ca_pem(&self) -> String {
        self.read("other-ca.pem")
    }

    /// The same as a file.
    #[must_use]
    pub fn other_ca_file(&self) -> PathBuf {
        self.dir.join("other-ca.pem")
    }

    /// A certificate for a client, signed by the server's authority.
    #[must_use]
    pub fn client_pem(&self) -> String {
        self.read("client.pem")
    }

    /// The same as a file.
    #[must_use]
    pub fn client_file(&self) -> PathBuf {
        self.dir.join("client.pem")
    }

    /// The key of the client's certificate.
    #[must_use]
    pub fn client_key_pem(&self) -> String {
        self.read("client.key")
    }

    /// The same as a file.
    #[must_use]
    pub fn client_key_file(&self) -> PathBuf {
        self.dir.join("client.key")
    }

    pub(crate) fn server_file(&self) -> PathBuf {
        self.dir.join("server.pem")
    }

    pub(crate) fn server_key_file(&self) -> PathBuf {
        self.dir.join("server.key")
    }

    /// Those that [`Certificates::make`] wrote below `home`.
    pub(crate) fn of(home: &Path) -> Self {
        Self { dir: home.join("tls") }
    }

    /// Makes and writes all of them below `home`; `hosts` are what the server's certificate is for, `owner` reads the server's key.
    pub(crate) fn make(home: &Path, hosts: &[String], owner: Option<(u32, u32)>) -> Self {
        let made = Self::of(home);
        // Others may pass: the server may run as another user.
        std::fs::DirBuilder::new().mode(0o711).create(&made.dir).expect("the directory is new");
        let ca = authority("infra-testkit authority");
        made.write("ca.pem", &ca.pem(), 0o644);
        made.write("other-ca.pem", &authority("infra-testkit other authority").pem(), 0o644);
        let pairs = [
            ("server", hosts.to_vec(), ExtendedKeyUsagePurpose::ServerAuth),
            ("client", vec!["infra-testkit-client".to_owned()], ExtendedKeyUsagePurpose::ClientAuth),
        ];
        for (name, names, usage) in pairs {
            let key = KeyPair::generate().expect("the system gives chance for a key");
            let mut params = CertificateParams::new(names).expect("host names are plain ASCII");
            params.distinguished_name.push(DnType::CommonName, format!("infra-testkit {name}"));
            params.use_authority_key_identifier_extension = true;
            params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
            params.extended_key_usages = vec![usage];
            let certificate = params.signed_by(&key, &ca).expect("the authority can sign");
            made.write(&format!("{name}.pem"), &certificate.pem(), 0o644);
            made.write(&format!("{name}.key"), &key.serialize_pem(), 0o600);
        }
        if let Some((uid, gid)) = owner {
            chown(made.server_key_file(), Some(uid), Some(gid)).expect("root may give files away");
        }
        made
    }

    fn read(&self, name: &str) -> String {
        let path = self.dir.join(name);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        let file = std::fs::File::options().write(true).create_new(true).mode(mode).open(self.dir.join(name));
        file.and_then(|mut file| file.write_all(text.as_bytes())).expect("the directory is writable");
    }
}

fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).expect("no names are no wrong names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().expect("the system gives chance for a key");
    CertifiedIssuer::self_signed(params, key).expect("an authority can sign for itself")
}
