//! What building and running needs. Every check is cheap, so that all commands can begin with it.

pub(crate) mod apt;
pub(crate) mod bpf_linker;
pub(crate) mod cargo_fuzz;
pub(crate) mod nats_server;
mod rust_src;
mod tansu;

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

/// What the features besides need, to be built and tested.
pub(crate) fn features(env: &Env) -> Result<()> {
    apt::need(&[
        // librdkafka, with TLS.
        apt::Need { program: "cmake", package: "cmake" },
        apt::Need { program: "pkg-config", package: "pkg-config" },
        apt::Need { program: "/usr/include/openssl/ssl.h", package: "libssl-dev" },
    ])?;
    nats_server::ensure(env)?;
    tansu::ensure(env)
}
