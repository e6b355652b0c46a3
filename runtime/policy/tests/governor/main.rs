//! The governor, told as stories and tried with generated ones.

#![allow(clippy::unwrap_used, reason = "a test that cannot continue should say where")]

mod admission;
mod apps;
mod climate;
mod honoured;
mod ladder;
mod leave;
mod levels;
mod properties;
mod record;
mod rules;
mod strain;
mod world;
