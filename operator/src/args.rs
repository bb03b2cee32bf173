//! Flags and environment.

use clap::Parser;

#[derive(Clone, Debug, Parser)]
#[command(
    name = "rhumb-operator",
    version,
    about = "Runs VectorDatabases on Kubernetes"
)]
pub struct Args {
    /// Namespaces to look after, comma separated; all when empty.
    #[arg(long, env = "RHUMB_WATCH_NAMESPACES", value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,
    /// Image of data nodes of databases that name none.
    #[arg(long, env = "RHUMB_DATA_NODE_IMAGE")]
    pub data_node_image: String,
    /// When data nodes pull their image: Always, IfNotPresent or Never.
    #[arg(long, env = "RHUMB_PULL_POLICY", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub pull_policy: Option<String>,
    /// Where this operator runs and keeps its lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "rhumb-system")]
    pub namespace: String,
    /// Name of this process in the lease.
    #[arg(long, env = "POD_NAME", default_value = "rhumb-operator")]
    pub pod_name: String,
    /// Health and metrics.
    #[arg(long, env = "RHUMB_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: std::net::SocketAddr,
}

impl Args {
    /// The namespaces without blanks; `None` is all of them.
    pub fn namespaces(&self) -> Option<Vec<String>> {
        let named = self.watch_namespaces.iter().map(|n| n.trim().to_owned());
        let named: Vec<String> = named.filter(|n| !n.is_empty()).collect();
        (!named.is_empty()).then_some(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(flag: &str) -> Option<Vec<String>> {
        Args::parse_from([
            "rhumb-operator",
            "--data-node-image=x",
            "--watch-namespaces",
            flag,
        ])
        .namespaces()
    }

    #[test]
    fn no_namespace_means_all_of_them() {
        assert_eq!(namespaces(""), None);
        assert_eq!(namespaces("a, b,"), Some(vec!["a".to_owned(), "b".to_owned()]));
    }
}
