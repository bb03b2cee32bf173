//! Everybody there is, in one object: keys, users, groups, roles, open sessions, and the two
//! secrets under which their proofs are hashed.
//!
//! Nodes hold a copy and look for a newer one every second.  All changes are functions from
//! one state to the next, so that whoever writes the object can repeat them on the newest
//! state when another was faster.  Its size is bounded by counting what is in it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::key::Check;
use crate::session::{self, REFRESH_LIFE_MS, Refresh, Session, Tokens};
use crate::{
    Claims, Denied, Family, Grant, Group, Identity, Key, KeySpec, MintedKey, Name, Pace, Password, Role,
    RoleProblem, Secret, Subject,
};

pub const MOST_KEYS: usize = 10_000;
pub const MOST_USERS: usize = 10_000;
pub const MOST_GROUPS: usize = 1_000;
pub const MOST_ROLES: usize = 1_000;
const MOST_SESSIONS: usize = 20_000;
const SESSIONS_OF_ONE: usize = 32;
const ROLES_OF_ONE: usize = 64;
const MOST_MEMBERS: usize = 1_000;
/// Of one identity's claims, written as JSON.
const LONGEST_CLAIMS: usize = 8 << 10;
const LONGEST_KEY_NAME: usize = 128;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    pepper: Secret,
    signing: Secret,
    pub keys: BTreeMap<String, Key>,
    pub users: BTreeMap<Name, User>,
    pub groups: BTreeMap<Name, Group>,
    pub roles: BTreeMap<Name, Role>,
    sessions: BTreeMap<String, Family>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Without one nobody logs in with a password: a certificate is needed.
    pub password: Option<Password>,
    pub roles: Vec<Name>,
    #[serde(default, skip_serializing_if = "Claims::is_empty")]
    pub claims: Claims,
    #[serde(default, skip_serializing_if = "Pace::is_boundless")]
    pub pace: Pace,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DirectoryError {
    #[error("there is no {0} '{1}'")]
    NotFound(&'static str, String),
    #[error("there is no role '{0}'")]
    UnknownRole(String),
    #[error("there is no user '{0}'")]
    UnknownUser(String),
    #[error("there is no group '{0}'")]
    UnknownGroup(String),
    #[error("'{0}' is a built-in role")]
    BuiltIn(String),
    #[error(transparent)]
    Role(#[from] RoleProblem),
    #[error("there are {0} {1} already, as many as may be")]
    Full(usize, &'static str),
    #[error("{0}")]
    Invalid(&'static str),
}

impl DirectoryError {
    /// The member of the request that is wrong.
    pub fn field(&self) -> Option<&'static str> {
        match self {
            Self::UnknownRole(_) => Some("roles"),
            Self::UnknownUser(_) => Some("members"),
            Self::UnknownGroup(_) => Some("groups"),
            Self::Role(_) => Some("grants"),
            Self::NotFound(..) | Self::BuiltIn(_) | Self::Full(..) | Self::Invalid(_) => None,
        }
    }
}

/// A changed state and what to tell whoever asked for the change.
#[derive(Debug)]
pub struct Change<T> {
    pub directory: Directory,
    pub answer: T,
}

type Changed<T> = Result<Change<T>, DirectoryError>;

impl Directory {
    pub fn new(pepper: Secret, signing: Secret) -> Self {
        Self {
            pepper,
            signing,
            keys: BTreeMap::new(),
            users: BTreeMap::new(),
            groups: BTreeMap::new(),
            roles: BTreeMap::new(),
            sessions: BTreeMap::new(),
        }
    }

    // Who is this?

    /// From `Authorization: Bearer`, except a JWT.
    pub fn identify(&self, credential: &str, now_ms: i64) -> Result<Identity, Denied> {
        if Session::is_one(credential) {
            return self.identify_session(credential, now_ms);
        }
        let shown = MintedKey::parse(credential).ok_or(Denied::Invalid)?;
        let key = self.keys.get(&shown.id).ok_or(Denied::Invalid)?;
        match key.check(&shown, &self.pepper, now_ms) {
            Check::Wrong => Err(Denied::Invalid),
            Check::Expired => Err(Denied::Expired),
            Check::Holds => Ok(self.identity(
                Subject::key(&shown.id),
                key.roles.iter(),
                key.claims.clone(),
                key.pace,
            )),
        }
    }

    fn identify_session(&self, token: &str, now_ms: i64) -> Result<Identity, Denied> {
        let session = Session::open(token, &self.signing, now_ms)?;
        let open = self.sessions.get(&session.family);
        // Ended by a logout of all, a new password, or a refresh token that was used twice.
        if open.is_none_or(|family| family.user != session.user) {
            return Err(Denied::Expired);
        }
        self.identify_user(session.user.as_str()).ok_or(Denied::Expired)
    }

    /// Of somebody whose certificate carries this name.
    pub fn identify_user(&self, name: &str) -> Option<Identity> {
        let (name, user) = self.users.get_key_value(name)?;
        let groups = self.groups.values().filter(|group| group.members.contains(name));
        let roles: BTreeSet<&Name> = user.roles.iter().chain(groups.flat_map(|g| &g.roles)).collect();
        Some(self.identity(
            Subject::user(name.as_str()),
            roles.into_iter(),
            user.claims.clone(),
            user.pace,
        ))
    }

    /// Of somebody whom an issuer of tokens vouches for.
    pub fn identify_token(&self, issuer: &str, sub: &str, roles: &[Name], claims: Claims) -> Identity {
        self.identity(Subject::token(issuer, sub), roles.iter(), claims, Pace::default())
    }

    fn identity<'a>(
        &self,
        subject: Subject,
        roles: impl Iterator<Item = &'a Name>,
        claims: Claims,
        pace: Pace,
    ) -> Identity {
        let roles: Vec<String> = roles.map(Name::to_string).collect();
        Identity {
            grants: roles.iter().flat_map(|role| self.grants_of(role)).collect(),
            subject,
            roles,
            claims,
            pace,
        }
    }

    /// A role that is gone grants nothing.
    fn grants_of(&self, role: &str) -> Vec<Grant> {
        match Role::built_in(role) {
            Some(role) => role.grants,
            None => self
                .roles
                .get(role)
                .map_or(Vec::new(), |role| role.grants.clone()),
        }
    }

    // Keys.

    pub fn add_key(&self, spec: KeySpec, minted: &MintedKey, now_ms: i64) -> Changed<()> {
        full(self.keys.len(), MOST_KEYS, "keys")?;
        if spec.name.is_empty()
            || spec.name.len() > LONGEST_KEY_NAME
            || spec.name.chars().any(char::is_control)
        {
            return Err(DirectoryError::Invalid(
                "a key's name has 1 to 128 bytes of plain text",
            ));
        }
        self.check_roles(&spec.roles)?;
        check_claims(&spec.claims)?;
        self.changed(|next| {
            next.keys
                .insert(minted.id.clone(), Key::new(spec, minted, &self.pepper, now_ms));
        })
    }

    pub fn rotate_key(&self, minted: &MintedKey, now_ms: i64, overlap_ms: i64) -> Changed<()> {
        self.found(self.keys.contains_key(&minted.id), "key", &minted.id)?;
        self.changed(|next| {
            if let Some(key) = next.keys.get_mut(&minted.id) {
                key.rotate(minted, &self.pepper, now_ms, overlap_ms);
            }
        })
    }

    pub fn delete_key(&self, id: &str) -> Changed<()> {
        self.found(self.keys.contains_key(id), "key", id)?;
        self.changed(|next| drop(next.keys.remove(id)))
    }

    /// Whether this very key is a valid admin's, and not about to end by a rotation.
    pub fn has_admin_key(&self, shown: &MintedKey, now_ms: i64) -> bool {
        let key = self.keys.get(&shown.id);
        key.is_some_and(|key| {
            key.check(shown, &self.pepper, now_ms) == Check::Holds
                && key.is_newest(shown, &self.pepper)
                && key.roles.iter().any(|role| role.as_str() == "admin")
        })
    }

    /// Later uses of keys than are known yet.
    pub fn note_uses(&self, uses: &BTreeMap<String, i64>) -> Self {
        let mut next = self.clone();
        for (id, at_ms) in uses {
            if let Some(key) = next.keys.get_mut(id) {
                key.last_used_ms = key.last_used_ms.max(Some(*at_ms));
            }
        }
        next
    }

    // Users, groups, roles.

    /// `password` is the hash of a new one; without one the old stays.
    pub fn put_user(&self, name: Name, user: User) -> Changed<bool> {
        let old = self.users.get(&name);
        if old.is_none() {
            full(self.users.len(), MOST_USERS, "users")?;
        }
        self.check_roles(&user.roles)?;
        check_claims(&user.claims)?;
        let (is_new, has_new_password) = (old.is_none(), user.password.is_some());
        let password = user.password.or_else(|| old.and_then(|old| old.password.clone()));
        let mut next = self.clone();
        if has_new_password {
            // Who knew the old one is logged out.
            next.sessions.retain(|_, family| family.user != name);
        }
        next.users.insert(name, User { password, ..user });
        Ok(Change {
            directory: next,
            answer: is_new,
        })
    }

    /// The groups a user is in, made exactly these.
    pub fn set_groups_of(&self, user: &Name, groups: &BTreeSet<Name>) -> Changed<()> {
        if let Some(unknown) = groups.iter().find(|group| !self.groups.contains_key(*group)) {
            return Err(DirectoryError::UnknownGroup(unknown.to_string()));
        }
        self.changed(|next| {
            for (name, group) in &mut next.groups {
                match groups.contains(name) {
                    true => group.members.insert(user.clone()),
                    false => group.members.remove(user),
                };
            }
        })
    }

    pub fn groups_of(&self, user: &Name) -> Vec<&Name> {
        let of = self
            .groups
            .iter()
            .filter(|(_, group)| group.members.contains(user));
        of.map(|(name, _)| name).collect()
    }

    pub fn delete_user(&self, name: &str) -> Changed<()> {
        self.found(self.users.contains_key(name), "user", name)?;
        self.changed(|next| {
            next.users.remove(name);
            next.sessions.retain(|_, family| family.user.as_str() != name);
            for group in next.groups.values_mut() {
                group.members.remove(name);
                // Another user of this name later must not own it.
                if group.owner.as_ref().is_some_and(|owner| owner.as_str() == name) {
                    group.owner = None;
                }
            }
        })
    }

    pub fn put_group(&self, name: Name, group: Group) -> Changed<bool> {
        let is_new = !self.groups.contains_key(&name);
        if is_new {
            full(self.groups.len(), MOST_GROUPS, "groups")?;
        }
        if group.members.len() > MOST_MEMBERS {
            return Err(DirectoryError::Invalid("a group has at most 1,000 members"));
        }
        self.check_roles(&group.roles)?;
        for user in group.owner.iter().chain(&group.members) {
            if !self.users.contains_key(user) {
                return Err(DirectoryError::UnknownUser(user.to_string()));
            }
        }
        let mut next = self.clone();
        next.groups.insert(name, group);
        Ok(Change {
            directory: next,
            answer: is_new,
        })
    }

    pub fn delete_group(&self, name: &str) -> Changed<()> {
        self.found(self.groups.contains_key(name), "group", name)?;
        self.changed(|next| drop(next.groups.remove(name)))
    }

    pub fn put_role(&self, name: Name, role: Role) -> Changed<bool> {
        if Role::built_in(name.as_str()).is_some() {
            return Err(DirectoryError::BuiltIn(name.to_string()));
        }
        role.check()?;
        let is_new = !self.roles.contains_key(&name);
        if is_new {
            full(self.roles.len(), MOST_ROLES, "roles")?;
        }
        let mut next = self.clone();
        next.roles.insert(name, role);
        Ok(Change {
            directory: next,
            answer: is_new,
        })
    }

    pub fn delete_role(&self, name: &str) -> Changed<()> {
        if Role::built_in(name).is_some() {
            return Err(DirectoryError::BuiltIn(name.to_owned()));
        }
        self.found(self.roles.contains_key(name), "role", name)?;
        self.changed(|next| drop(next.roles.remove(name)))
    }

    // Sessions.

    /// A session of a user whose password was found right.  `family` is a new id.
    pub fn open_session(&self, user: &Name, family: String, now_ms: i64) -> Changed<Tokens> {
        self.found(self.users.contains_key(user), "user", user.as_str())?;
        let mut next = self.clone();
        next.sessions.retain(|_, open| open.expires_at_ms > now_ms);
        let mut own: Vec<(i64, String)> = next
            .sessions
            .iter()
            .filter(|(_, open)| open.user == *user)
            .map(|(id, open)| (open.expires_at_ms, id.clone()))
            .collect();
        own.sort_unstable();
        let over = (own.len() + 1).saturating_sub(SESSIONS_OF_ONE);
        for (_, oldest) in own.iter().take(over) {
            next.sessions.remove(oldest);
        }
        full(next.sessions.len(), MOST_SESSIONS, "sessions")?;
        let opened = Family {
            user: user.clone(),
            generation: 0,
            expires_at_ms: now_ms + REFRESH_LIFE_MS,
        };
        let answer = session::tokens(&family, &opened, &self.signing, now_ms);
        next.sessions.insert(family, opened);
        Ok(Change {
            directory: next,
            answer,
        })
    }

    /// The next tokens of a session.  One used twice ends it: then the state changes as well,
    /// and the answer is the refusal.
    pub fn refresh(&self, token: &str, now_ms: i64) -> Result<Change<Result<Tokens, Denied>>, Denied> {
        let shown = Refresh::open(token, &self.signing)?;
        let family = self.sessions.get(&shown.family).ok_or(Denied::Expired)?;
        if family.expires_at_ms <= now_ms || !self.users.contains_key(&family.user) {
            return Err(Denied::Expired);
        }
        let mut next = self.clone();
        if shown.generation != family.generation {
            next.sessions.remove(&shown.family);
            return Ok(Change {
                directory: next,
                answer: Err(Denied::Reused),
            });
        }
        let renewed = Family {
            generation: family.generation + 1,
            expires_at_ms: now_ms + REFRESH_LIFE_MS,
            ..family.clone()
        };
        let tokens = session::tokens(&shown.family, &renewed, &self.signing, now_ms);
        next.sessions.insert(shown.family, renewed);
        Ok(Change {
            directory: next,
            answer: Ok(tokens),
        })
    }

    fn changed(&self, edit: impl FnOnce(&mut Self)) -> Changed<()> {
        let mut directory = self.clone();
        edit(&mut directory);
        Ok(Change {
            directory,
            answer: (),
        })
    }

    fn found(&self, is: bool, what: &'static str, name: &str) -> Result<(), DirectoryError> {
        match is {
            true => Ok(()),
            false => Err(DirectoryError::NotFound(what, rhumb_core::problem::shorten(name))),
        }
    }

    fn check_roles(&self, roles: &[Name]) -> Result<(), DirectoryError> {
        if roles.len() > ROLES_OF_ONE {
            return Err(DirectoryError::Invalid("at most 64 roles"));
        }
        let unknown = roles
            .iter()
            .find(|role| Role::built_in(role.as_str()).is_none() && !self.roles.contains_key(*role));
        match unknown {
            Some(role) => Err(DirectoryError::UnknownRole(role.to_string())),
            None => Ok(()),
        }
    }
}

fn full(now: usize, most: usize, what: &'static str) -> Result<(), DirectoryError> {
    match now < most {
        true => Ok(()),
        false => Err(DirectoryError::Full(now, what)),
    }
}

fn check_claims(claims: &Claims) -> Result<(), DirectoryError> {
    match serde_json::to_string(claims).map_or(usize::MAX, |text| text.len()) <= LONGEST_CLAIMS {
        true => Ok(()),
        false => Err(DirectoryError::Invalid("claims are at most 8 KiB of JSON")),
    }
}

#[cfg(test)]
mod tests;
