//! [`Connections`]: connections to a server, which are used again.

use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use postgres::config::{Host, SslMode};
use postgres::{Client, Config, Error};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::cli::EngineArgs;
use crate::engines::http::secret;
use crate::engines::{EngineError, EngineResult};
use crate::environment;
use crate::failure::{bad_input, in_words};

/// Connections to one database. Each thread takes one, and puts it back.
pub(super) struct Connections {
    config: Config,
    tls: MakeRustlsConnect,
    idle: Mutex<Vec<Client>>,
}

impl Connections {
    /// Reads the address and the credentials. The password is that of `--password-env`, of the address or of `PGPASSWORD`.
    ///
    /// # Errors
    /// No address or one of another form, an environment variable that is not set, certificates that cannot be read.
    pub(super) fn new(args: &EngineArgs) -> Result<Self> {
        if args.api_key_env.is_some() {
            return Err(bad_input(
                "--api-key-env: PostgreSQL has no API keys",
                "give --user and --password-env, or PGPASSWORD",
            ));
        }
        // the message of the parser may hold a part of the address, and so of a password
        let mut config = Config::from_str(args.url()?).map_err(|_| {
            bad_input(
                "--url: not an address of PostgreSQL",
                "write postgresql://user@host:5432/database, or host=/folder/of/socket dbname=database",
            )
        })?;
        if let Some(user) = &args.user {
            config.user(user);
        }
        let password = secret("--password-env", args.password_env.as_deref())?;
        let from_environment = || config.get_password().is_none().then(|| environment::text("PGPASSWORD")).flatten();
        if let Some(password) = password.or_else(from_environment) {
            config.password(password);
        }
        let timeout = Duration::from_secs(args.engine_timeout);
        config.application_name("splade").connect_timeout(timeout).tcp_user_timeout(timeout);
        let options = config.get_options().unwrap_or_default();
        let options = format!("{options} -c statement_timeout={}", timeout.as_millis());
        config.options(options.trim());
        if config.get_ssl_mode() == SslMode::Prefer && config.get_hosts().iter().all(is_local) {
            config.ssl_mode(SslMode::Disable);
        }
        Ok(Self { config, tls: MakeRustlsConnect::new(tls()?), idle: Mutex::default() })
    }

    /// Calls `work` with a connection. `place` is the table, for messages.
    pub(super) fn run<T>(&self, place: &str, work: impl FnOnce(&mut Client) -> Result<T, Error>) -> EngineResult<T> {
        let failed = |error: Error| failed(place, &error);
        let mut client = match self.take() {
            Some(client) => client,
            None => self.config.connect(self.tls.clone()).map_err(failed)?,
        };
        let result = work(&mut client).map_err(failed);
        if !client.is_closed() {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(client);
        }
        result
    }

    /// A connection that was used before and is still open.
    fn take(&self) -> Option<Client> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(|client| !client.is_closed())
    }
}

/// True for a socket or an address of this machine.
fn is_local(host: &Host) -> bool {
    match host {
        #[cfg(unix)]
        Host::Unix(_) => true,
        Host::Tcp(name) => name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback()),
    }
}

/// TLS with the certificates of web authorities, and with those of the file that `PGSSLROOTCERT` names.
fn tls() -> Result<ClientConfig> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(file) = environment::text("PGSSLROOTCERT") {
        let wrong =
            |why: String| bad_input(format!("PGSSLROOTCERT: {file}: {why}"), "it names a file of certificates in PEM");
        let certificates = CertificateDer::pem_file_iter(Path::new(&file)).map_err(|error| wrong(error.to_string()))?;
        for certificate in certificates {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(versions.with_root_certificates(roots).with_no_client_auth())
}

/// The error of a statement or of a connection. Classes of codes are those of appendix A of PostgreSQL's manual.
fn failed(place: &str, error: &Error) -> EngineError {
    let Some(refusal) = error.as_db_error() else {
        let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
        let io = causes.clone().find_map(|cause| cause.downcast_ref::<std::io::Error>());
        let why = io.map_or_else(|| causes.last().map_or_else(|| error.to_string(), ToString::to_string), in_words);
        let message = format!("{place}: {why}");
        return if error.is_closed() || io.is_some() {
            EngineError::outage(message, "check that the server runs at --url", None)
        } else {
            EngineError::run(message, "check --url, and the password of --password-env or PGPASSWORD")
        };
    };
    let code = refusal.code().code();
    let message = format!(
        "{place}: {}{}",
        refusal.message(),
        refusal.detail().map_or(String::new(), |detail| format!(": {detail}"))
    );
    match &code[..2] {
        // connection, resources, intervention such as a shutdown or a timeout, rollback, system
        "08" | "53" | "57" | "40" | "58" => {
            EngineError::outage(message, "try again later, or give a longer --engine-timeout", None)
        }
        // data, constraint, limit
        "22" | "23" | "54" => EngineError::content(message),
        "28" => EngineError::run(message, "give credentials in --url, by --user and --password-env, or by PGPASSWORD"),
        _ if ["0A000", "42704", "58P01"].contains(&code) => {
            EngineError::run(message, "the database needs the extension pgvector, version 0.7 or later")
        }
        _ => EngineError::run(message, ""),
    }
}
