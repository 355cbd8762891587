//! `detector devices`: what there is, what would be attached where, and what that would see.

use std::io::Write;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use pnet::datalink;
use serde::Serialize;

use crate::attach::{
    Device, DevicePattern, Directions, Hook, Layer, Notice, Trouble,
    device::{self, XdpSlotMode},
    holder::SlotHolder,
    plan::{self, Attempt, Part, Traffic},
    privileges::{self, Capabilities, KernelFeatures},
};

/// Show network devices, what would be attached to them, and what that would and would not see.
///
/// Nothing is attached. Works for every user; the names of programs that hold a device are told
/// to root only.
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:
  detector devices                     every device of this network namespace
  detector devices n6 'ogstun*'        these only
  detector devices n6 --hook tc        what `hook: tc` would do
  detector devices -o json | jq '.devices[].plan'

Exit codes: 0 listed; 1 no device fits a PATTERN, or devices could not be listed.")]
pub struct DevicesArgs {
    /// Names or patterns (`*`, `?`, `[0-9]`) of devices; without any, all devices.
    #[arg(value_name = "PATTERN")]
    patterns: Vec<DevicePattern>,
    /// Where received packets are to be taken; what is sent is always taken at TC egress.
    #[arg(long, value_enum, default_value_t)]
    hook: Hook,
    /// Which packets are to be looked at.
    #[arg(long, value_enum, default_value_t)]
    directions: Directions,
    /// How to print it.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

#[derive(Debug, Serialize)]
struct Report {
    kernel: KernelFeatures,
    devices: Vec<DeviceReport>,
    notices: Vec<Notice>,
}

#[derive(Debug, Serialize)]
struct DeviceReport {
    #[serde(flatten)]
    facts: Device,
    addresses: Vec<String>,
    holders: Vec<SlotHolder>,
    plan: Vec<PartReport>,
}

#[derive(Debug, PartialEq, Serialize)]
struct PartReport {
    traffic: Traffic,
    /// Best first; the first that works is used. Empty: this traffic is not seen.
    attempts: Vec<Attempt>,
    sees: String,
    notices: Vec<Notice>,
}

/// Runs the command.
pub async fn run(args: DevicesArgs) -> anyhow::Result<()> {
    let kernel = KernelFeatures::detect().context("cannot tell the kernel's release")?;
    let capabilities = Capabilities::current().context("cannot tell this process's privileges")?;
    let mut devices = device::list().await?;
    devices.retain(|device| {
        args.patterns.is_empty() || args.patterns.iter().any(|p| p.matches(&device.name))
    });
    if devices.is_empty() {
        let patterns: Vec<_> = args.patterns.iter().map(DevicePattern::as_str).collect();
        bail!(
            "no device of this network namespace fits {}; `detector devices` lists all",
            patterns.join(" or ")
        );
    }
    // pnet lists what the kernel's getifaddrs(3) tells: the addresses, which links do not have.
    let interfaces = datalink::interfaces();
    let addresses = |index: u32| {
        let of_device = interfaces.iter().filter(|interface| interface.index == index);
        of_device.flat_map(|interface| &interface.ips).map(ToString::to_string).collect()
    };
    let report = Report {
        devices: devices
            .into_iter()
            .map(|facts| DeviceReport::new(addresses(facts.index), facts, &args, &kernel))
            .collect(),
        notices: privileges::check(&kernel, capabilities)
            .iter()
            .map(|trouble| trouble.notice("this machine"))
            .collect(),
        kernel,
    };
    let text = match args.output {
        Output::Json => serde_json::to_string_pretty(&report)?,
        Output::Table => report.text(),
    };
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")
}

impl DeviceReport {
    fn new(
        addresses: Vec<String>,
        facts: Device,
        args: &DevicesArgs,
        kernel: &KernelFeatures,
    ) -> Self {
        let slots = facts.xdp.iter().filter(|slot| slot.mode != XdpSlotMode::Offload);
        let holders: Vec<_> = slots.map(|slot| SlotHolder::of(*slot)).collect();
        let parts = plan::plan(&facts, args.hook, args.directions, kernel);
        let plan = [Traffic::Received, Traffic::Sent]
            .map(|traffic| {
                let part = parts.iter().find(|part| part.traffic == traffic);
                PartReport::new(&facts, traffic, part, &holders)
            })
            .into();
        Self { addresses, holders, plan, facts }
    }

    fn facts(&self) -> String {
        let kind = self.facts.kind.as_deref().unwrap_or("unknown driver");
        let layer = match self.facts.layer {
            Layer::Ethernet => "Ethernet".to_string(),
            Layer::Ip => "raw IP".to_string(),
            Layer::Other(arphrd) => format!("ARPHRD {arphrd}"),
        };
        let up = if self.facts.up { "up" } else { "down" };
        format!("{kind}, {layer}, MTU {}, {up}", self.facts.mtu)
    }
}

impl PartReport {
    /// `part` is what the plan has for this traffic, if it was asked for.
    fn new(device: &Device, traffic: Traffic, part: Option<&Part>, holders: &[SlotHolder]) -> Self {
        let mut troubles = part.map(|part| part.troubles.clone()).unwrap_or_default();
        let mut attempts = part.map(|part| part.attempts.clone()).unwrap_or_default();
        if !holders.is_empty() && attempts.iter().any(|attempt| attempt.program.is_xdp()) {
            let taken = Trouble::SlotTaken { holders: holders.to_vec() };
            attempts.retain(|attempt| plan::worth_trying(*attempt, std::slice::from_ref(&taken)));
            troubles.push(taken);
        }
        Self {
            traffic,
            attempts,
            sees: plan::sees(device, traffic),
            notices: troubles.iter().map(|trouble| trouble.notice(&device.name)).collect(),
        }
    }

    /// "XDP native, else XDP generic, else TC ingress".
    fn hooks(&self) -> String {
        let mut hooks: Vec<_> = self.attempts.iter().map(|one| one.hook.to_string()).collect();
        hooks.dedup(); // native is tried twice, with and without frags
        if hooks.is_empty() { "none: not seen".into() } else { hooks.join(", else ") }
    }
}

impl Report {
    fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(["device", "facts", "addresses", "traffic", "hook", "which is"]);
        for device in &self.devices {
            for (row, part) in device.plan.iter().enumerate() {
                let colour = if part.attempts.is_empty() { Color::Red } else { Color::Green };
                let once = |text: String| if row == 0 { text } else { String::new() };
                table.add_row([
                    Cell::new(once(device.facts.name.clone())),
                    Cell::new(once(device.facts())),
                    Cell::new(once(device.addresses.join("\n"))),
                    Cell::new(part.traffic),
                    Cell::new(part.hooks()).fg(colour),
                    Cell::new(plan::meaning(device.facts.layer, part.traffic)),
                ]);
            }
        }
        let mut lines = vec![table.to_string()];
        lines.extend(self.views());
        for device in &self.devices {
            lines.extend(
                device
                    .holders
                    .iter()
                    .map(|holder| format!("{}: the XDP slot holds {holder}", device.facts.name)),
            );
            lines.extend(device.plan.iter().flat_map(|p| &p.notices).map(ToString::to_string));
        }
        lines.extend(self.notices.iter().map(ToString::to_string));
        lines.join("\n")
    }

    /// What each hook of the table sees, once.
    fn views(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let parts = self.devices.iter().flat_map(|device| &device.plan);
        for attempt in parts.flat_map(|part| &part.attempts) {
            let line = format!("{}: {}", attempt.hook, attempt.hook.view());
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines.sort();
        lines
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;
    use crate::attach::privileges::TCX;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        devices: DevicesArgs,
    }

    fn report(xdp: Vec<device::XdpSlot>, line: &[&str]) -> Report {
        let Cli { devices: args } = Cli::parse_from([&["devices"], line].concat());
        let kernel = KernelFeatures::of(TCX);
        let facts = Device {
            index: 2,
            name: "n6".into(),
            layer: Layer::Ethernet,
            mtu: 1500,
            up: true,
            kind: Some("veth".into()),
            xdp,
        };
        let device = DeviceReport::new(vec!["10.0.0.1/24".into()], facts, &args, &kernel);
        Report { kernel, devices: vec![device], notices: vec![] }
    }

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn says_what_auto_would_choose_and_which_way_it_looks() {
        let report = report(vec![], &[]);
        let hooks: Vec<_> = report.devices[0].plan.iter().map(PartReport::hooks).collect();
        assert_eq!(hooks, ["XDP native, else XDP generic, else TC ingress", "TC egress"]);
        let text = report.text();
        assert!(text.contains("veth, Ethernet, MTU 1500, up"), "{text}");
        assert!(text.contains("TC egress: packets the stack sends"), "{text}");
    }

    #[test]
    fn a_taken_slot_is_named_and_leaves_tc() {
        let slot = device::XdpSlot { mode: XdpSlotMode::Native, program_id: u32::MAX };
        let report = report(vec![slot], &[]);
        assert_eq!(report.devices[0].plan[0].hooks(), "TC ingress");
        let text = report.text();
        assert!(
            text.contains("the XDP slot is taken by a program (id 4294967295, native)"),
            "{text}"
        );
    }

    #[test]
    fn what_was_not_asked_for_is_said_to_be_unseen() {
        let report = report(vec![], &["--directions", "receive", "--hook", "xdp-generic"]);
        let hooks: Vec<_> = report.devices[0].plan.iter().map(PartReport::hooks).collect();
        assert_eq!(hooks, ["XDP generic", "none: not seen"]);
    }

    #[test]
    fn the_json_names_attempts_as_the_configuration_does() {
        let json = serde_json::to_value(report(vec![], &[])).unwrap();
        let first = &json["devices"][0]["plan"][0]["attempts"][0];
        let expected =
            serde_json::json!({ "hook": "xdp-native", "program": "detector_xdp_ethernet" });
        assert_eq!(*first, expected);
        assert_eq!(json["devices"][0]["name"], "n6");
        assert_eq!(json["kernel"]["release"], "6.6");
    }
}
