use serde_json::json;

use super::*;
use crate::hash_password;
use crate::session::SESSION_LIFE_MS;

fn name(text: &str) -> Name {
    Name::parse(text).expect("a name")
}

fn minted(id: &str, byte: u8) -> MintedKey {
    MintedKey::new(id.into(), Secret::new([byte; 32]))
}

fn spec(roles: &[&str]) -> KeySpec {
    KeySpec {
        name: "ci".into(),
        roles: roles.iter().map(|role| name(role)).collect(),
        ..KeySpec::default()
    }
}

fn user(roles: &[&str]) -> User {
    User {
        password: Some(hash_password("correct horse", [1; 16])),
        roles: roles.iter().map(|role| name(role)).collect(),
        claims: Claims::new(),
        pace: Pace::default(),
    }
}

fn empty() -> Directory {
    Directory::new(Secret::new([1; 32]), Secret::new([2; 32]))
}

fn with_ada() -> Directory {
    let made = empty().put_user(name("ada"), user(&["reader"])).expect("valid");
    assert!(made.answer);
    made.directory
}

#[test]
fn a_key_lives_from_its_making_to_its_deletion() {
    let key = minted("k1", 7);
    let made = empty()
        .add_key(spec(&["reader"]), &key, 5)
        .expect("valid")
        .directory;
    let who = made.identify(&key.reveal(), 6).expect("valid");
    assert_eq!(
        (who.subject.as_str(), who.roles.as_slice()),
        ("key:k1", &["reader".to_owned()][..])
    );
    let wrong = minted("k1", 8);
    assert_eq!(made.identify(&wrong.reveal(), 6).err(), Some(Denied::Invalid));
    assert_eq!(
        made.identify(&minted("k2", 7).reveal(), 6).err(),
        Some(Denied::Invalid)
    );
    let gone = made.delete_key("k1").expect("there").directory;
    assert_eq!(gone.identify(&key.reveal(), 6).err(), Some(Denied::Invalid));
    assert!(matches!(
        gone.delete_key("k1"),
        Err(DirectoryError::NotFound("key", _))
    ));
}

#[test]
fn nobody_gets_a_role_that_does_not_exist() {
    let refused = empty().add_key(spec(&["nope"]), &minted("k", 1), 0);
    assert!(matches!(refused, Err(DirectoryError::UnknownRole(_))));
    assert!(matches!(
        empty().put_role(name("admin"), Role::default()),
        Err(DirectoryError::BuiltIn(_))
    ));
}

#[test]
fn a_role_that_is_gone_grants_nothing() {
    let role: Role =
        serde_json::from_value(json!({"grants": [{"collections": "a-*", "operations": ["read"]}]}))
            .expect("a role");
    let made = empty().put_role(name("a"), role).expect("valid").directory;
    let key = minted("k1", 7);
    let made = made.add_key(spec(&["a"]), &key, 0).expect("valid").directory;
    assert!(made.identify(&key.reveal(), 0).expect("valid").sees("a-1"));
    let made = made.delete_role("a").expect("there").directory;
    assert!(!made.identify(&key.reveal(), 0).expect("valid").sees("a-1"));
}

#[test]
fn members_of_a_group_have_its_roles() {
    let group = Group {
        owner: Some(name("ada")),
        members: BTreeSet::from([name("ada")]),
        roles: vec![name("editor")],
    };
    let made = with_ada()
        .put_group(name("g"), group.clone())
        .expect("valid")
        .directory;
    assert_eq!(
        made.identify_user("ada").expect("there").roles,
        ["editor", "reader"]
    );
    let stranger = Group {
        members: BTreeSet::from([name("bob")]),
        ..group
    };
    assert!(matches!(
        made.put_group(name("g"), stranger),
        Err(DirectoryError::UnknownUser(_))
    ));
    let made = made.delete_user("ada").expect("there").directory;
    assert_eq!(made.groups["g"].owner, None);
    assert!(made.groups["g"].members.is_empty());
}

#[test]
fn groups_of_a_user_are_made_exactly_what_is_asked() {
    let made = with_ada()
        .put_group(name("g"), Group::default())
        .expect("valid")
        .directory;
    let made = made
        .put_group(name("h"), Group::default())
        .expect("valid")
        .directory;
    let in_g = BTreeSet::from([name("g")]);
    let made = made.set_groups_of(&name("ada"), &in_g).expect("valid").directory;
    assert_eq!(made.groups_of(&name("ada")), [&name("g")]);
    let in_h = BTreeSet::from([name("h")]);
    let made = made.set_groups_of(&name("ada"), &in_h).expect("valid").directory;
    assert_eq!(made.groups_of(&name("ada")), [&name("h")]);
    let nowhere = BTreeSet::from([name("nowhere")]);
    assert!(made.set_groups_of(&name("ada"), &nowhere).is_err());
}

#[test]
fn a_session_lasts_a_quarter_of_an_hour_and_is_renewed_by_its_refresh_token() {
    let opened = with_ada()
        .open_session(&name("ada"), "f1".into(), 0)
        .expect("there");
    let (state, first) = (opened.directory, opened.answer);
    assert_eq!(
        state.identify(&first.token, 1).expect("valid").subject.as_str(),
        "user:ada"
    );
    assert_eq!(
        state.identify(&first.token, SESSION_LIFE_MS).err(),
        Some(Denied::Expired)
    );
    let renewed = state
        .refresh(&first.refresh_token, SESSION_LIFE_MS)
        .expect("valid");
    let second = renewed.answer.expect("the first use");
    assert!(
        renewed
            .directory
            .identify(&second.token, SESSION_LIFE_MS + 1)
            .is_ok()
    );
}

#[test]
fn a_refresh_token_used_twice_ends_the_session() {
    let opened = with_ada()
        .open_session(&name("ada"), "f1".into(), 0)
        .expect("there");
    let stolen = opened.answer.refresh_token.clone();
    let renewed = opened.directory.refresh(&stolen, 1).expect("valid");
    let own = renewed.answer.expect("the first use");
    let again = renewed.directory.refresh(&stolen, 2).expect("it is a real token");
    assert_eq!(again.answer.err(), Some(Denied::Reused));
    assert_eq!(
        again.directory.identify(&own.token, 3).err(),
        Some(Denied::Expired)
    );
    assert!(matches!(
        again.directory.refresh(&own.refresh_token, 3),
        Err(Denied::Expired)
    ));
}

#[test]
fn a_new_password_ends_the_sessions_and_none_keeps_them() {
    let opened = with_ada()
        .open_session(&name("ada"), "f1".into(), 0)
        .expect("there");
    let (state, tokens) = (opened.directory, opened.answer);
    let kept = User {
        password: None,
        ..user(&["editor"])
    };
    let kept = state.put_user(name("ada"), kept).expect("valid").directory;
    assert!(kept.identify(&tokens.token, 1).is_ok());
    assert!(
        kept.users["ada"]
            .password
            .as_ref()
            .is_some_and(|p| p.is("correct horse"))
    );
    let ended = state
        .put_user(name("ada"), user(&["editor"]))
        .expect("valid")
        .directory;
    assert_eq!(ended.identify(&tokens.token, 1).err(), Some(Denied::Expired));
    let gone = state.delete_user("ada").expect("there").directory;
    assert_eq!(gone.identify(&tokens.token, 1).err(), Some(Denied::Expired));
}

#[test]
fn one_user_has_so_many_sessions_and_no_more() {
    let mut state = with_ada();
    for n in 0..SESSIONS_OF_ONE + 5 {
        let opened = state.open_session(&name("ada"), format!("f{n}"), n as i64);
        state = opened.expect("there").directory;
    }
    assert_eq!(state.sessions.len(), SESSIONS_OF_ONE);
    assert!(!state.sessions.contains_key("f0"));
}

#[test]
fn the_object_can_be_read_again_and_holds_no_secret_of_anybody() {
    let key = minted("k1", 7);
    let state = with_ada()
        .add_key(spec(&["admin"]), &key, 5)
        .expect("valid")
        .directory;
    let opened = state.open_session(&name("ada"), "f1".into(), 0).expect("there");
    let text = serde_json::to_string(&opened.directory).expect("json");
    let read: Directory = serde_json::from_str(&text).expect("it reads");
    assert_eq!(read, opened.directory);
    for secret in [
        key.secret.reveal().as_str(),
        opened.answer.token.as_str(),
        opened.answer.refresh_token.as_str(),
        "correct horse",
    ] {
        assert!(!text.contains(secret));
        assert!(!format!("{read:?}").contains(secret));
    }
}

#[test]
fn uses_are_noted_and_never_go_back() {
    let state = empty()
        .add_key(spec(&[]), &minted("k1", 7), 0)
        .expect("valid")
        .directory;
    let used = state.note_uses(&BTreeMap::from([("k1".into(), 50), ("gone".into(), 9)]));
    let used = used.note_uses(&BTreeMap::from([("k1".into(), 40)]));
    assert_eq!(used.keys["k1"].last_used_ms, Some(50));
    assert_eq!(used.keys.len(), 1);
}

#[test]
fn only_a_valid_key_with_the_admin_role_is_an_admins() {
    let (admin, reader) = (minted("a", 1), minted("r", 2));
    let state = empty()
        .add_key(spec(&["admin"]), &admin, 0)
        .expect("valid")
        .directory;
    let state = state
        .add_key(spec(&["reader"]), &reader, 0)
        .expect("valid")
        .directory;
    assert!(state.has_admin_key(&admin, 1));
    assert!(!state.has_admin_key(&reader, 1));
    assert!(!state.has_admin_key(&minted("a", 9), 1));
}
