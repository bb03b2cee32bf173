//! Groups: their members have their roles; their owner keeps the list of members.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::Name;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// A user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Name>,
    #[serde(default)]
    pub members: BTreeSet<Name>,
    #[serde(default)]
    pub roles: Vec<Name>,
}
