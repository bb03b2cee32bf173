//! Identity and TLS, from outside: a server as it starts by default, and everybody who may
//! come to its door.
#![allow(
    clippy::disallowed_methods,
    reason = "a black box lives in real time, with real chance and real processes: nothing here is simulated"
)]

mod home;
mod issuer;
mod keys;
mod matrix;
mod pace;
mod rows;
mod tls;
mod tokens;
