//! Clients that go away before they are answered.
//!
//! The request says `Expect: 100-continue`, and the host answers that when it begins to read the body. So it is certain that
//! the host knows of the request when its client goes, wherever it is with it by then.

use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    ask::Ask,
    talk::{Client, PATIENCE},
};

/// Sends a request and closes the connection after a moment, whatever came.
pub(crate) async fn early(client: &mut Client, ask: &Ask, moment: Duration) {
    let request = known(&client.base, &client.name, ask);
    match timeout(PATIENCE, request).await {
        Err(_) => client.hung(ask, false),
        Ok(Err(error)) => client.broken(ask, &format!("{error:#}")),
        Ok(Ok(connection)) => {
            client.left_early(ask.dialect, ask.class);
            tokio::time::sleep(moment).await;
            drop(connection);
        }
    }
}

/// A connection whose request the host has begun to read.
async fn known(base: &str, name: &str, ask: &Ask) -> Result<TcpStream> {
    let address = base.trim_start_matches("http://");
    let body = ask.body.to_string();
    let head = format!(
        "POST {} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         expect: 100-continue\r\nx-locara-client: {name}\r\nx-locara-class: {}\r\n\r\n",
        ask.path,
        body.len(),
        ask.class.word(),
    );
    let mut connection = TcpStream::connect(address).await?;
    connection.write_all(head.as_bytes()).await?;
    const GO_ON: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let mut answer = [0; GO_ON.len()];
    connection.read_exact(&mut answer).await?;
    ensure!(answer == *GO_ON, "instead of 100 the host says {:?}", String::from_utf8_lossy(&answer));
    connection.write_all(body.as_bytes()).await?;
    Ok(connection)
}
