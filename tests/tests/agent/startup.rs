//! What cannot be started with is refused with exit code 1 and a message that helps.

use std::{fs::Permissions, os::unix::fs::PermissionsExt as _};

use testbed::{agent::binary, need_root};

use crate::bed::{ADMIN, Bed, UE, config, config_with, refusal, settled};

#[test]
fn an_unknown_config_field_is_refused_with_its_place_and_the_nearest_name() {
    need_root!();
    let bed = Bed::new();
    bed.write("config.yaml", &config_with("{name: n6, hok: xdp}", "sink: {stdout: {}}"));
    let said = refusal(bed.spawn());
    assert!(said.contains("config.yaml:6:24: spec.devices[0].hok: unknown field"), "{said}");
    assert!(said.contains("did you mean \"hook\"?"), "{said}");
}

#[test]
fn rules_that_cannot_be_read_are_refused_at_the_start() {
    need_root!();
    let bed = Bed::new();
    bed.write("rules.yaml", "apiVersion: detector.dev/v1alpha1\nkind: Ruel\n");
    let said = refusal(bed.spawn());
    assert!(said.contains("rules.yaml:2:7:") && said.contains("\"Rule\""), "{said}");
}

#[test]
fn without_a_sink_the_message_names_both_ways_to_give_one() {
    need_root!();
    let bed = Bed::new();
    bed.write("config.yaml", &config_with("{name: n6}", ""));
    let said = refusal(bed.spawn());
    assert!(said.contains("no sink: set spec.sink"), "{said}");
    assert!(said.contains("K_SINK"), "{said}");
}

#[test]
fn the_sink_and_extensions_of_a_sink_binding_are_used() {
    need_root!();
    let bed = Bed::new();
    bed.write("config.yaml", &config_with("{name: n6}", ""));
    let receiver = bed.receiver();
    let mut command = bed.command();
    command.env("K_SINK", format!("{}edge/default", receiver.url()));
    command.env("K_CE_OVERRIDES", r#"{"extensions": {"region": "north"}}"#);
    let mut agent = bed.spawn_command(command);
    agent.wait_until_ready(crate::bed::LIMIT).expect("ready");
    bed.buy(UE);
    settled(&agent, "delivered", 1);
    let [request] = receiver.recorded().try_into().expect("one event");
    assert_eq!(request.path, "/edge/default");
    assert_eq!(request.header("ce-region"), "north");
}

#[test]
fn a_taken_admin_port_is_named() {
    need_root!();
    let bed = Bed::new();
    let _taken = bed.dn.listen(ADMIN.parse().expect("address")).expect("port");
    let said = refusal(bed.spawn());
    assert!(said.contains("admin server: cannot listen on 127.0.0.1:9901"), "{said}");
    assert!(said.contains("in use"), "{said}");
    assert!(!bed.describe("n6").contains("xdp"));
}

#[test]
fn without_privileges_the_message_names_the_capabilities() {
    need_root!();
    let bed = Bed::new();
    bed.write("config.yaml", &config());
    let files = bed.path("");
    std::fs::set_permissions(&files, Permissions::from_mode(0o755)).expect("permissions");
    // A copy, because the build's directory may be closed to others.
    let program = bed.path("detector");
    std::fs::copy(binary("detector").expect("`cargo xtask build`"), &program).expect("copy");
    let mut command = bed.dn.command("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
    command.arg(program).args(["run", "--config"]).arg(bed.path("config.yaml"));
    let said = refusal(bed.spawn_command(command));
    assert!(said.contains("CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"), "{said}");
}
