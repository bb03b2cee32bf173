//! The machine under the cluster, and the ways to break it.  Each break returns a guard: when
//! it goes, also by a panic, all is as before.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use rhumb_e2e::process::Signal;
use rustix::process::{Pid, kill_process};

use super::objects;

/// The bridge that carries the nodes, the control plane and the S3 server.
pub const ADDRESS: &str = "10.250.0.1";
pub const API_PORT: u16 = 6443;
pub const S3_PORT: u16 = 9000;

pub struct Machine {
    work: PathBuf,
}

impl Machine {
    pub fn new(work: PathBuf) -> Self {
        Self { work }
    }

    /// The folder of the repositories that Argo CD syncs from; there when Argo CD is.
    pub fn repositories(&self) -> PathBuf {
        self.work.join("argocd/git")
    }

    /// The first process of a pod's container, as its node's containerd knows it.
    pub fn pid(&self, pod: &Pod) -> Result<Pid> {
        let (node, id) = (objects::node(pod)?, objects::container_id(pod)?);
        let tasks = self.ctr(&node, &["tasks", "ls"])?;
        let line = tasks
            .lines()
            .find(|line| line.starts_with(&id))
            .with_context(|| format!("{} does not run on {node}:\n{tasks}", pod.name_any()))?;
        let pid = line.split_whitespace().nth(1).context("no pid")?.parse()?;
        Pid::from_raw(pid).context("no pid")
    }

    pub fn kill(&self, pod: &Pod) -> Result<()> {
        kill_process(self.pid(pod)?, Signal::KILL).context("kill -9")
    }

    /// Stopped until the guard goes.
    pub fn freeze(&self, pod: &Pod) -> Result<Frozen> {
        Frozen::new(self.pid(pod)?)
    }

    /// A process of the cluster itself: `apiserver`, `etcd`, `node2-kubelet`, ...
    pub fn freeze_part(&self, part: &str) -> Result<Frozen> {
        let file = self.work.join("parts").join(part).join("pid");
        let text = std::fs::read_to_string(&file).with_context(|| format!("{part} was never started"))?;
        let pid = text.split_whitespace().next().context("no pid")?.parse()?;
        Frozen::new(Pid::from_raw(pid).context("no pid")?)
    }

    /// A process of the cluster is killed and stays away until the guard goes.
    pub fn without(&self, part: &str) -> Result<Restored> {
        self.part(&["stop", part, "KILL"])?;
        let start = self.part_command(&["start", part]);
        Ok(Restored(vec![start]))
    }

    /// `kill -9` and a new one.
    pub fn kill_part(&self, part: &str) -> Result<()> {
        self.part(&["stop", part, "KILL"])?;
        self.part(&["start", part])
    }

    /// The machine is gone: no kubelet, no network, and whatever ran there is dead.
    pub fn lose_node(&self, node: &str) -> Result<Restored> {
        let mut lost = self.cut_node(node)?;
        lost.0.extend(self.without(&format!("{node}-kubelet"))?.keep());
        for id in self.ctr(node, &["tasks", "ls", "-q"])?.lines() {
            // It may have ended by itself.
            let _ = self.ctr(node, &["tasks", "kill", "--signal", "SIGKILL", id]);
        }
        Ok(lost)
    }

    /// Nothing reaches the pods of a node and they reach nothing; they live on.  Its kubelet
    /// cannot be cut off this way: it shares the machine's own network.
    pub fn cut_node(&self, node: &str) -> Result<Restored> {
        let number = node.trim_start_matches("node");
        self.cut(&format!("10.244.{number}.0/24"), None)
    }

    pub fn cut_pod(&self, pod: &Pod) -> Result<Restored> {
        self.cut(&objects::ip(pod)?, None)
    }

    /// The pod cannot reach the API server; all else goes on.
    pub fn cut_from_api(&self, pod: &Pod) -> Result<Restored> {
        self.cut(&objects::ip(pod)?, Some(API_PORT))
    }

    pub fn cut_from_s3(&self, pod: &Pod) -> Result<Restored> {
        self.cut(&objects::ip(pod)?, Some(S3_PORT))
    }

    /// Pods of different nodes cannot reach each other on `port`.
    pub fn cut_between_pods(&self, port: u16) -> Result<Restored> {
        let between = [
            "-s",
            "10.244.0.0/16",
            "-d",
            "10.244.0.0/16",
            "-p",
            "tcp",
            "--dport",
        ];
        let mut rule: Vec<String> = between.map(str::to_owned).to_vec();
        rule.push(port.to_string());
        insert(vec![("FORWARD", rule)])
    }

    /// Drops what `source` sends: to a port of this machine's bridge, or all of it and all
    /// that is sent to it.
    fn cut(&self, source: &str, port: Option<u16>) -> Result<Restored> {
        let from = vec!["-s".to_owned(), source.to_owned()];
        let Some(port) = port else {
            let to = vec!["-d".to_owned(), source.to_owned()];
            return insert(vec![
                ("INPUT", from.clone()),
                ("FORWARD", from),
                ("FORWARD", to.clone()),
                ("OUTPUT", to),
            ]);
        };
        let to = ["-d", ADDRESS, "-p", "tcp", "--dport", &port.to_string()].map(str::to_owned);
        insert(vec![("INPUT", [from, to.to_vec()].concat())])
    }

    fn ctr(&self, node: &str, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("ctr");
        command
            .args([
                "-a",
                &format!("/run/rhumb-e2e/{node}/containerd.sock"),
                "-n",
                "k8s.io",
            ])
            .args(arguments);
        run(&mut command)
    }

    fn part(&self, arguments: &[&str]) -> Result<()> {
        run(&mut self.part_command(arguments)).map(drop)
    }

    fn part_command(&self, arguments: &[&str]) -> Command {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/part.sh");
        let mut command = Command::new(script);
        command.arg(&self.work).args(arguments);
        command
    }
}

/// Rules above all others; the guard takes them away again.
fn insert(rules: Vec<(&str, Vec<String>)>) -> Result<Restored> {
    let mut restored = Restored(Vec::new());
    for (chain, rule) in rules {
        let rule = [rule, ["-j", "DROP"].map(str::to_owned).to_vec()].concat();
        run(Command::new("iptables").args(["-w", "-I", chain]).args(&rule))?;
        let mut delete = Command::new("iptables");
        delete.args(["-w", "-D", chain]).args(&rule);
        restored.0.push(delete);
    }
    Ok(restored)
}

fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// What has to be run for all to be as before.
#[must_use = "it is undone at once"]
pub struct Restored(Vec<Command>);

impl Restored {
    fn keep(mut self) -> Vec<Command> {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        for command in &mut self.0 {
            if let Err(error) = run(command) {
                eprintln!("NOT RESTORED: {error:#}");
            }
        }
    }
}

/// A process that is stopped until this goes.
#[must_use = "it goes on at once"]
#[derive(Debug)]
pub struct Frozen(Pid);

impl Frozen {
    fn new(pid: Pid) -> Result<Self> {
        kill_process(pid, Signal::STOP).context("SIGSTOP")?;
        Ok(Self(pid))
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // The kubelet may have killed it meanwhile.
        let _ = kill_process(self.0, Signal::CONT);
    }
}

/// How long a fault lasts; named so that a scenario reads as a story.
pub async fn for_a_while(time: Duration) {
    tokio::time::sleep(time).await;
}

/// The one address of a name, as the cluster's own server of names knows it.
pub async fn resolve(name: &str) -> Result<String> {
    let socket = tokio::net::UdpSocket::bind((ADDRESS, 0)).await?;
    socket.connect((ADDRESS, 53)).await?;
    let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len())?);
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 0, 1, 0, 1]);
    socket.send(&question).await?;
    let mut answer = [0; 1024];
    let read = tokio::time::timeout(Duration::from_secs(5), socket.recv(&mut answer)).await??;
    let records = u16::from_be_bytes([answer[6], answer[7]]);
    if records != 1 {
        bail!("{name} has {records} addresses");
    }
    // The record, and with it the message, ends with the address.
    let ip = answer[..read].last_chunk::<4>().context("too short")?;
    Ok(ip.map(|part| part.to_string()).join("."))
}
