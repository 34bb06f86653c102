//! TLS through rustls with `ring`, named explicitly: no process-wide provider is installed or needed.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::config::RedisTls;
use crate::{error::BackendError, pem::Pem};

fn broken(what: &'static str, rule: String) -> BackendError {
    BackendError::InvalidConfig { what, rule }
}

fn bytes(pem: &Pem, what: &'static str) -> Result<Vec<u8>, BackendError> {
    match pem {
        Pem::Text(text) => Ok(text.expose().clone().into_bytes()),
        Pem::File(path) => {
            std::fs::read(path).map_err(|e| broken(what, format!("{} must be readable: {e}", path.display())))
        }
    }
}

fn certificates(pem: &Pem, what: &'static str) -> Result<Vec<CertificateDer<'static>>, BackendError> {
    let bytes = bytes(pem, what)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(broken(what, "it must hold at least one `BEGIN CERTIFICATE` block in PEM form".to_owned())),
    }
}

/// Reads certificates and keys; blocks on files.
pub(super) fn client_config(tls: &RedisTls) -> Result<Arc<ClientConfig>, BackendError> {
    let mut roots = RootCertStore::empty();
    match &tls.ca_pem {
        Some(pem) => {
            for certificate in certificates(pem, "Redis TLS authority")? {
                let added = roots.add(certificate);
                added.map_err(|e| broken("Redis TLS authority", format!("it must be a valid certificate: {e}")))?;
            }
        }
        None => {
            let native = rustls_native_certs::load_native_certs();
            if roots.add_parsable_certificates(native.certs).0 == 0 {
                return Err(broken("Redis TLS authority", "this machine trusts none: name one".to_owned()));
            }
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| broken("Redis TLS", e.to_string()))?
        .with_root_certificates(roots);
    let Some((certificate, key)) = &tls.client else {
        return Ok(Arc::new(builder.with_no_client_auth()));
    };
    let chain = certificates(certificate, "Redis TLS client certificate")?;
    let key = PrivateKeyDer::from_pem_slice(&bytes(key, "Redis TLS client key")?)
        .map_err(|_| broken("Redis TLS client key", "it must hold a private key in PEM form".to_owned()))?;
    let config = builder.with_client_auth_cert(chain, key);
    Ok(Arc::new(config.map_err(|e| broken("Redis TLS client certificate", format!("it must fit its key: {e}")))?))
}

/// Speaks TLS over `tcp`.
pub(super) async fn wrap(
    tls: &RedisTls,
    host: &str,
    target: &str,
    tcp: TcpStream,
) -> Result<TlsStream<TcpStream>, BackendError> {
    let settings = tls.clone();
    let config = tokio::task::spawn_blocking(move || client_config(&settings)).await;
    let config = config.map_err(|e| BackendError::Other { reason: e.to_string() })??;
    let name = ServerName::try_from(tls.server_name.clone().unwrap_or_else(|| host.to_owned()));
    let name = name.map_err(|_| broken("Redis TLS server name", "it must be a host name or an address".to_owned()))?;
    TlsConnector::from(config).connect(name, tcp).await.map_err(|e| failure(target, &e))
}

/// What a failed read, write or handshake over TLS means.
pub(super) fn failure(target: &str, error: &std::io::Error) -> BackendError {
    let target = target.to_owned();
    let Some(reason) = error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()) else {
        let reason =
            format!("{error} during the TLS handshake; check host and port, and whether it is a TLS port at all");
        return BackendError::Connect { target, reason };
    };
    let advice = match reason {
        rustls::Error::InvalidCertificate(_) => "check the authority, the name and the dates of its certificate",
        rustls::Error::InvalidMessage(_) => "the port does not speak TLS: use redis:// or the TLS port",
        rustls::Error::AlertReceived(_) => "the server refuses this client's certificate or the lack of one",
        _ => "check both sides' TLS settings",
    };
    BackendError::Tls { target, reason: format!("{reason}; {advice}") }
}
