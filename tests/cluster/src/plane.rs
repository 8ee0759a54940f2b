//! One control plane: brought up in seconds in a folder of its own, gone without a trace when dropped.

mod access;
mod certs;
mod commands;
mod site;

use crate::{Daemon, until};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};
use site::Site;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// It takes seconds on a quiet machine; others may be busy.
const PATIENCE: Duration = Duration::from_secs(180);

/// A running control plane. Dropped, it kills its processes and removes its folder.
pub struct Plane {
    client: Client,
    kubeconfig: PathBuf,
    api: Daemon,
    etcd: Daemon,
    controllers: Vec<Daemon>,
    // Last: the processes are gone before their folder is.
    site: Site,
}

impl Plane {
    /// Brings up etcd, API server, controller-manager and scheduler, and waits until they work.
    ///
    /// # Errors
    /// If a program is missing (the message says how to get it) or does not come up (it has its last words).
    pub async fn start() -> anyhow::Result<Plane> {
        let site = Site::prepare()?;
        let kubeconfig = site.admin_kubeconfig()?;
        let etcd = Daemon::start(
            "etcd",
            &commands::etcd(site.ports, site.folder())?,
            &site.logs(),
        )?;
        let api = start_api(&site)?;
        let client = Plane::client_of(&kubeconfig).await?;
        let mut plane = Plane {
            client,
            kubeconfig,
            api,
            etcd,
            controllers: Vec::new(),
            site,
        };
        plane.until_api_is_ready().await?;
        plane.start_controllers()?;
        plane.until_controllers_work().await?;
        Ok(plane)
    }

    /// A client that may do everything.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The address of the API server.
    pub fn url(&self) -> String {
        self.site.url()
    }

    /// The address of the database, which takes anybody's word.
    pub fn etcd_url(&self) -> String {
        self.site.etcd_url()
    }

    /// The certificate that signs the API server's.
    pub fn authority(&self) -> PathBuf {
        self.site.certs.path("ca.crt")
    }

    /// The folder of this plane, for what belongs to it; removed with it.
    pub fn folder(&self) -> &Path {
        self.site.folder()
    }

    /// The folder of the logs, one for each process.
    pub fn logs(&self) -> PathBuf {
        self.site.logs()
    }

    /// Leaves the folder with all logs behind, for somebody to look at.
    pub fn keep_folder(&mut self) {
        self.site.keep();
    }

    /// Kills the API server as a crash would.
    ///
    /// # Errors
    /// If it cannot be killed.
    pub fn stop_api(&mut self) -> anyhow::Result<()> {
        self.api.kill()
    }

    /// Starts the API server again, on the same port and data, and waits until it is ready.
    ///
    /// # Errors
    /// If it does not come up.
    pub async fn start_api(&mut self) -> anyhow::Result<()> {
        self.api = start_api(&self.site)?;
        self.until_api_is_ready().await
    }

    /// Lets the API server stand still: it takes connections and does not answer, until [`Plane::thaw_api`].
    ///
    /// # Errors
    /// If it is gone.
    pub fn freeze_api(&self) -> anyhow::Result<()> {
        self.api.freeze()
    }

    /// Ends what [`Plane::freeze_api`] began.
    ///
    /// # Errors
    /// If it is gone.
    pub fn thaw_api(&self) -> anyhow::Result<()> {
        self.api.thaw()
    }

    /// # Errors
    /// If one of the processes has ended: its last words.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.etcd.check()?;
        self.api.check()?;
        self.controllers.iter_mut().try_for_each(Daemon::check)
    }

    fn start_controllers(&mut self) -> anyhow::Result<()> {
        let (kubeconfig, logs) = (&self.kubeconfig, self.logs());
        let manager = commands::controller_manager(kubeconfig, &self.site.certs)?;
        let scheduler = commands::scheduler(kubeconfig)?;
        self.controllers = vec![
            Daemon::start("kube-controller-manager", &manager, &logs)?,
            Daemon::start("kube-scheduler", &scheduler, &logs)?,
        ];
        Ok(())
    }

    /// Ready means more than answering: its own first objects are there.
    async fn until_api_is_ready(&mut self) -> anyhow::Result<()> {
        let client = self.client.clone();
        until("the API server is ready", PATIENCE, || {
            let alive = self.check();
            let client = client.clone();
            async move {
                alive?;
                let asked = http::Request::get("/readyz").body(Vec::new())?;
                Ok(client
                    .request_text(asked)
                    .await
                    .map_err(|why| why.to_string()))
            }
        })
        .await
        .map(drop)
    }

    /// The controller-manager has begun once it gave the first namespace its account.
    async fn until_controllers_work(&mut self) -> anyhow::Result<()> {
        let accounts: Api<ServiceAccount> = Api::default_namespaced(self.client());
        until("the controller-manager works", PATIENCE, || {
            let alive = self.check();
            let accounts = accounts.clone();
            async move {
                alive?;
                Ok(accounts.get("default").await.map_err(|why| why.to_string()))
            }
        })
        .await
        .map(drop)
    }
}

fn start_api(site: &Site) -> anyhow::Result<Daemon> {
    let command = commands::api_server(site.ports, &site.certs)?;
    Daemon::start("kube-apiserver", &command, &site.logs())
}
