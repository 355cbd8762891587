//! What building and running needs. Every check is cheap, so that all commands can begin with it.

pub(crate) mod apt;
pub(crate) mod bpf_linker;
pub(crate) mod cargo_fuzz;
mod rust_src;
mod tansu;
pub(crate) mod unpacked;

use anyhow::Result;

use crate::env::Env;

/// Checks everything and installs what is missing.
pub(crate) fn run(env: &Env) -> Result<()> {
    apt::need(&[
        // Namespaces, veth pairs, routes: tests and demo.
        apt::Need { program: "ip", package: "iproute2" },
        // A test sets its agent's clock back.
        apt::Need { program: "faketime", package: "faketime" },
        // bpf-linker links the C++ standard library.
        apt::Need { program: "c++", package: "g++" },
    ])?;
    rust_src::ensure(env)?;
    bpf_linker::ensure(env)?;
    Ok(())
}

/// What the features besides need, to be built.
pub(crate) fn features() -> Result<()> {
    apt::need(&[
        // librdkafka, with TLS.
        apt::Need { program: "cmake", package: "cmake" },
        apt::Need { program: "pkg-config", package: "pkg-config" },
        apt::Need { program: "/usr/include/openssl/ssl.h", package: "libssl-dev" },
    ])
}

/// The programs that tests compare with or speak to. Where one cannot be had its tests are skipped, and
/// counted.
pub(crate) fn tests(env: &Env) -> Result<()> {
    let installed = apt::need(&[
        apt::Need { program: "curl", package: "curl" },
        apt::Need { program: "dig", package: "bind9-dnsutils" },
        apt::Need { program: "dumpcap", package: "wireshark-common" },
        apt::Need { program: "mosquitto_pub", package: "mosquitto-clients" },
        apt::Need { program: "mosquitto_sub", package: "mosquitto-clients" },
        apt::Need { program: "openssl", package: "openssl" },
        apt::Need { program: "tshark", package: "tshark" },
    ]);
    if let Err(error) = installed {
        eprintln!("    tests with these will be skipped: {error:#}");
    }
    unpacked::want(env, &[unpacked::MOSQUITTO, unpacked::NATS_SERVER, unpacked::OSMO_GGSN]);
    tansu::ensure(env)
}
