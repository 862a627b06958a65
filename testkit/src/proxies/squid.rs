//! squid with Basic authentication, as companies run it.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{Credentials, url};
use crate::binaries::installed;
use crate::process::{Plan, Process, Source, free_port};

/// squid opens its helpers and files first; 30 times what it needs on an idle machine.
const READY: Duration = Duration::from_secs(60);

/// An HTTP proxy that lets `CONNECT` through for those who authenticate.
pub struct Squid {
    port: u16,
    credentials: Option<Credentials>,
    folder: TempDir,
    process: Process,
}

impl Squid {
    /// Starts it. With credentials it answers 407 without them; without any it is open.
    ///
    /// Names ending in `.culvert.test` resolve to 127.0.0.1 for squid only, so that a test sees whether the
    /// client left the resolving to the proxy: `relay.culvert.test` is one.
    ///
    /// # Errors
    /// squid or openssl is not installed, or squid does not start.
    pub async fn start(credentials: Option<Credentials>) -> Result<Self> {
        let squid = installed(&["/usr/sbin/squid"], "squid")?;
        let folder = tempfile::Builder::new().prefix("culvert-squid-").tempdir()?;
        // Started by root, squid becomes the user `proxy`, who must read and write here.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o777))?;
        let mut authentication = String::from("http_access allow CONNECT\n");
        if let Some(credentials) = &credentials {
            let helper = installed(&["/usr/lib/squid/basic_ncsa_auth"], "squid")?;
            let passwords = folder.path().join("passwords");
            std::fs::write(
                &passwords,
                format!("{}:{}\n", credentials.user, hash(&credentials.password).await?),
            )?;
            authentication = format!(
                "auth_param basic program {} {}\nauth_param basic children 2 startup=1\n\
                 auth_param basic realm culvert test\nacl known proxy_auth REQUIRED\n\
                 http_access allow CONNECT known\n",
                helper.display(),
                passwords.display(),
            );
        }
        let port = free_port()?;
        let config = folder.path().join("squid.conf");
        std::fs::write(&config, configuration(folder.path(), port, &authentication))?;
        std::fs::write(folder.path().join("hosts"), "127.0.0.1 localhost relay.culvert.test\n")?;
        let mut process = Plan::new("squid", squid).args(["-N", "-d1", "-f"]).arg(&config).start()?;
        process.answers(([127, 0, 0, 1], port).into(), READY).await?;
        Ok(Self { port, credentials, folder, process })
    }

    /// Its URL, with the credentials it was started with.
    pub fn url(&self) -> String {
        url("http", self.port, self.credentials.as_ref())
    }

    /// Its URL with other credentials, or with none.
    pub fn url_with(&self, credentials: Option<&Credentials>) -> String {
        url("http", self.port, credentials)
    }

    /// Its port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// One line for each finished request: result, method, target, user.
    ///
    /// A tunnel is finished when both its ends have closed.
    ///
    /// # Errors
    /// The log cannot be read.
    pub fn access_log(&self) -> Result<String> {
        std::fs::read_to_string(self.folder.path().join("access.log")).context("squid wrote no log")
    }

    /// The process, for signals and output.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn configuration(folder: &Path, port: u16, authentication: &str) -> String {
    let folder = folder.display();
    format!(
        "http_port 127.0.0.1:{port}\n{authentication}http_access deny all\ncache deny all\n\
         hosts_file {folder}/hosts\nlogformat short %Ss/%>Hs %rm %ru %un\n\
         access_log stdio:{folder}/access.log short\ncache_log {folder}/cache.log\npid_filename none\n\
         coredump_dir {folder}\nlogfile_rotate 0\npinger_enable off\nshutdown_lifetime 1 seconds\n\
         visible_hostname squid.culvert.test\nmax_filedescriptors 4096\nworkers 1\n"
    )
}

/// The password as `basic_ncsa_auth` keeps it (Apache's MD5; crypt would stop at 8 bytes).
async fn hash(password: &str) -> Result<String> {
    let openssl = installed(&["/usr/bin/openssl"], "openssl")?;
    let mut process =
        Plan::new("openssl passwd", openssl).args(["passwd", "-apr1", "-stdin"]).with_stdin().start()?;
    process.feed(format!("{password}\n").as_bytes()).await?;
    process.end_stdin();
    process.succeeds(READY).await?;
    Ok(process.output().text(Source::Stdout).trim().to_owned())
}
