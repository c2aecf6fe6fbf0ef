//! TLS of the API. Owns how the certificate and its key become an acceptor. Must never show what is in a key.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::ApiSettings;

/// The acceptor of these settings; `None`: they have no TLS.
///
/// # Errors
/// A file that cannot be read, or a key that does not belong to the certificate.
pub(super) fn acceptor(settings: &ApiSettings) -> Result<Option<TlsAcceptor>, String> {
    let (Some(cert_file), Some(key_file)) = (&settings.cert_file, &settings.key_file) else { return Ok(None) };
    let chain = chain(cert_file).map_err(|error| format!("api.cert_file {}: {error}", cert_file.display()))?;
    let unusable = |error: String| format!("api.key_file {}: {error}", key_file.display());
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| unusable(error.to_string()))?;
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    let mut config = config.map_err(|error| unusable(error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Some(TlsAcceptor::from(Arc::new(config))))
}

fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| error.to_string())?;
    let chain: Vec<_> = certificates.collect::<Result<_, _>>().map_err(|error| error.to_string())?;
    if chain.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(chain) }
}
