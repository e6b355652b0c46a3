//! Who owns a port that is taken.

use std::{io, net::SocketAddr};

use crate::{exit::Exit, failure::Failure};

/// Why an address cannot be bound, with the process that has it where the system tells.
pub(super) fn taken(address: SocketAddr, error: io::Error) -> Failure {
    let failure = Failure::new(Exit::Failure, format!("cannot listen on {address}")).because(error);
    match owner(address.port()) {
        Some(owner) => failure.help(format!(
            "{owner} listens there; stop it, or use another port: `locara serve --listen 127.0.0.1:PORT`"
        )),
        None => {
            failure.help("another program may listen there; `locara serve --listen 127.0.0.1:PORT` uses another port")
        }
    }
}

/// The process that listens on a TCP port, as `name (process 123)`.
#[cfg(target_os = "linux")]
pub(crate) fn owner(port: u16) -> Option<String> {
    let socket = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let table = fs_err::read_to_string(table).ok()?;
        table.lines().skip(1).find_map(|line| listens(line, port))
    })?;
    let wanted = format!("socket:[{socket}]");
    let processes = fs_err::read_dir("/proc").ok()?.filter_map(Result::ok);
    for process in processes {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // Those of other users cannot be read.
        let Ok(files) = fs_err::read_dir(process.path().join("fd")) else { continue };
        let holds = files
            .filter_map(Result::ok)
            .any(|file| fs_err::read_link(file.path()).is_ok_and(|target| target.to_string_lossy() == wanted));
        if holds {
            let name = fs_err::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (process {pid})", name.trim()));
        }
    }
    Some("a process of another user".to_owned())
}

/// Asking for it takes another user's rights there, or a private interface.
#[cfg(not(target_os = "linux"))]
pub(crate) fn owner(port: u16) -> Option<String> {
    let found = std::process::Command::new("lsof")
        .args(["-nP", "-sTCP:LISTEN", "-Fpc", &format!("-iTCP:{port}")])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&found.stdout).into_owned();
    let field = |tag: char| text.lines().find_map(|line| line.strip_prefix(tag)).map(str::to_owned);
    Some(format!("{} (process {})", field('c')?, field('p')?))
}

/// The inode of the socket, if this line of `/proc/net/tcp` is a listening one on the port.
#[cfg(any(target_os = "linux", test))]
fn listens(line: &str, port: u16) -> Option<u64> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let &[_, local, _, state, _, _, _, _, _, inode, ..] = fields.as_slice() else { return None };
    let (_, hex) = local.rsplit_once(':')?;
    let here = u16::from_str_radix(hex, 16).ok()?;
    (state == LISTEN && here == port).then(|| inode.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_kernel_is_understood() {
        let line = "   1: 0100007F:2CAA 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 12345 1 0 100 0 0 10 0";
        assert_eq!(listens(line, 11434), Some(12345));
        assert_eq!(listens(line, 11435), None);
        assert_eq!(listens(&line.replace(" 0A ", " 01 "), 11434), None);
        assert_eq!(listens("nonsense", 11434), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let found = owner(listener.local_addr().unwrap().port()).unwrap();
        assert!(found.contains(&format!("(process {})", std::process::id())), "{found}");
    }
}
