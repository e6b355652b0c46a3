//! `make storm`: many clients at once against the real `locara serve` with the embedded model.
//!
//! They mix dialects, streams, constraints, tools, prompts that are too long, and they leave whenever they like. Afterwards
//! nothing may hang, no place in a batch may be left to nobody, and what the host counted must be what the clients saw. It
//! prints what happened and one line of figures, and fails if a promise was broken.
//!
//! This program must never look inside the host: what it compares is what an operator can read.

mod ask;
mod compare;
mod leave;
mod read;
mod server;
mod talk;
mod tally;
mod watch;

use std::{process::ExitCode, time::Duration};

use anyhow::{Context as _, Result};
use clap::Parser;
use locara_zoo::Rng;
use tokio::{task::JoinSet, time::Instant};

use crate::{ask::Asker, server::Server, talk::Client, tally::Tally};

/// One in so many clients' requests is left before it is answered at all.
const LEAVES_EARLY: usize = 16;

/// Many clients at once against the real host.
#[derive(Debug, Parser)]
struct Args {
    /// Clients that ask at the same time
    #[arg(long, default_value_t = 64)]
    clients: usize,
    /// Seconds until the last request begins
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Draws the requests
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    // The client wants to know one even where nothing is encrypted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(storm(&args))
}

async fn storm(args: &Args) -> Result<ExitCode> {
    let server = Server::start().await?;
    println!("{} clients for {} s against {}, seed {}", args.clients, args.seconds, server.base(), args.seed);
    let mut own = Client::new(&server, "storm-watch")?;
    let context_tokens = watch::context_tokens(&mut own).await?;
    let watching = watch::every_second(Client::new(&server, "storm-health")?, server.pid());

    let end = Instant::now() + Duration::from_secs(args.seconds);
    let mut clients = JoinSet::new();
    for number in 0..args.clients {
        let name = format!("storm-{number}");
        let asker = Asker::new(Rng::new(args.seed, &name), context_tokens);
        clients.spawn(one(Client::new(&server, &name)?, asker, end));
    }
    let mut tally = Tally::default();
    while let Some(client) = clients.join_next().await {
        tally.add(client.context("a client broke")?);
    }

    let idle = watch::until_idle(&mut own).await?;
    // From here on only `own` asks, and what the host then says counts everything but this question.
    let health = watch::end(watching).await?;
    tally.add(std::mem::take(&mut own.tally));
    let metrics = own.get("/metrics").await?;
    tally.add(health.tally);
    let server_end = server.stop().await;
    let mut mismatches = tally.broken.clone();
    mismatches.extend(compare::differences(&metrics, &tally));
    if let Err(error) = server_end {
        mismatches.push(format!("the host did not end well: {error:#}"));
    }

    println!("{tally}");
    println!("{}", health.memory);
    let hung = tally.hung + health.hung;
    for (what, list) in
        [("hung", &tally.stuck), ("hung", &health.notes), ("leaked", &idle.notes), ("mismatched", &mismatches)]
    {
        list.iter().for_each(|note| println!("{what}: {note}"));
    }
    let (leaked, mismatched, requests) = (idle.leaked, mismatches.len(), tally.requests());
    println!("figures: hung={hung} leaked_slots={leaked} mismatched={mismatched} requests={requests}");
    let good = hung == 0 && leaked == 0 && mismatched == 0;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One client: asks until the time is over, then waits for its last answer.
async fn one(mut client: Client, mut asker: Asker, end: Instant) -> Tally {
    while Instant::now() < end {
        let ask = asker.next();
        if ask.may_leave() && asker.one_in(LEAVES_EARLY) {
            leave::early(&mut client, &ask, asker.moment()).await;
        } else {
            client.ask(&ask).await;
        }
    }
    client.tally
}
