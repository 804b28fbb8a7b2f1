//! A link between server and client: two network namespaces joined by a pair of virtual Ethernet devices, with the
//! work for what arrives put where it would be with two machines. On loopback the sender's system call does the
//! receiver's half as well.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

/// Where the echo clients come from: 127.0.0.2 and on. Enough for twenty of them at once, with as many connections as the
/// usual limit of open files lets each have.
const CLIENT_ADDRESSES: std::ops::Range<u8> = 2..32;

/// The two namespaces. They and all in them go with the value.
#[derive(Debug)]
pub(super) struct Link {
    server: String,
    client: String,
}

impl Link {
    /// Makes the link. The server is 127.0.0.1 there as well, and the client comes from 127.0.0.2 to 127.0.0.31, so that
    /// both are told nothing new. What arrives at either end is worked on by that end's core.
    ///
    /// # Errors
    /// When `ip` (of iproute2) is missing or refuses, which it does to all but root; when a core is beyond the 32nd.
    pub(super) fn create(server_core: usize, client_core: usize) -> anyhow::Result<Self> {
        let masks = [mask(server_core)?, mask(client_core)?];
        let name = |end| format!("corelane-{end}-{}", std::process::id());
        let link = Self { server: name("server"), client: name("client") };
        link.join(masks).context("--link needs root, iproute2 and virtual Ethernet devices")?;
        Ok(link)
    }

    fn join(&self, [server_mask, client_mask]: [u32; 2]) -> anyhow::Result<()> {
        let (server, client) = (&*self.server, &*self.client);
        ip(&["netns", "add", server])?;
        ip(&["netns", "add", client])?;
        let pair = ["link", "add", "server", "netns", server, "type", "veth"];
        ip(&[&pair[..], &["peer", "name", "client", "netns", client]].concat())?;
        prepare(server, "server", server_mask)?;
        prepare(client, "client", client_mask)?;
        ip(&["-n", server, "addr", "add", "127.0.0.1/8", "dev", "server"])?;
        for last in CLIENT_ADDRESSES {
            let address = format!("127.0.0.{last}/8");
            ip(&["-n", client, "addr", "add", &address, "dev", "client"])?;
        }
        Ok(())
    }

    /// A command that runs at the server's end.
    pub(super) fn at_server(&self, program: &Path) -> Command {
        inside(&self.server, program)
    }

    /// A command that runs at the client's end.
    pub(super) fn at_client(&self, program: &Path) -> Command {
        inside(&self.client, program)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for end in [&self.server, &self.client] {
            let _ = ip(&["netns", "del", end]);
        }
    }
}

/// `ip` becomes the program: the process keeps its number.
fn inside(namespace: &str, program: &Path) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

/// The core as the kernel's settings name it.
fn mask(core: usize) -> anyhow::Result<u32> {
    let mask = u32::try_from(core).ok().and_then(|core| 1_u32.checked_shl(core));
    mask.with_context(|| format!("--link knows the first 32 cores only, not core {core}"))
}

/// The addresses of 127/8 may travel over the device, whose arrivals are the work of the cores in `mask`, and nothing is
/// loopback.
fn prepare(namespace: &str, device: &str, mask: u32) -> anyhow::Result<()> {
    let settings = format!(
        "set -e; cd /proc/sys/net/ipv4/conf; \
         for one in all {device}; do echo 1 > $one/route_localnet; echo 0 > $one/rp_filter; done; \
         echo {mask:x} > /sys/class/net/{device}/queues/rx-0/rps_cpus"
    );
    ip(&["-n", namespace, "link", "set", "lo", "down"])?;
    ip(&["netns", "exec", namespace, "sh", "-c", &settings])?;
    ip(&["-n", namespace, "link", "set", device, "up"])
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments).output().context("cannot run `ip`")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("ip {}: {}", arguments.join(" "), said.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces() -> String {
        let output = Command::new("ip").args(["netns", "list"]).output();
        output
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default()
    }

    /// Whoever may not make one is told what it needs.
    #[test]
    fn it_joins_its_ends_and_goes_with_its_value() {
        let link = match Link::create(0, 0) {
            Ok(link) => link,
            Err(error) => return assert!(error.to_string().contains("root, iproute2")),
        };
        assert!(namespaces().contains(&link.server) && namespaces().contains(&link.client));
        let (server, client) = (link.server.clone(), link.client.clone());
        let route = |mut command: Command| {
            let output = command.args(["route", "get", "127.0.0.1"]).output().unwrap();
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let over_link = route(link.at_client(Path::new("ip")));
        assert!(over_link.contains("dev client"), "{over_link}");
        let own = route(link.at_server(Path::new("ip")));
        assert!(own.contains("local 127.0.0.1"), "{own}");
        drop(link);
        assert!(!namespaces().contains(&server) && !namespaces().contains(&client));
    }

    #[test]
    fn a_core_beyond_its_mask_is_refused() {
        for cores in [(32, 0), (0, 32)] {
            let error = Link::create(cores.0, cores.1).unwrap_err().to_string();
            assert!(error.contains("not core 32"), "{error}");
        }
    }
}
