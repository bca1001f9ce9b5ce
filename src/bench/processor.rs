//! The name of the host's processor, as its system reports it.

/// `None` where the system does not report it.
pub(super) fn name() -> Option<String> {
    let told = if cfg!(target_os = "linux") {
        of_cpuinfo(&std::fs::read_to_string("/proc/cpuinfo").ok()?)
    } else if cfg!(target_os = "macos") {
        let told = std::process::Command::new("sysctl").args(["-n", "machdep.cpu.brand_string"]).output().ok()?;
        String::from_utf8(told.stdout).ok()
    } else {
        std::env::var("PROCESSOR_IDENTIFIER").ok()
    };
    told.map(|name| name.split_whitespace().collect::<Vec<_>>().join(" ")).filter(|name| !name.is_empty())
}

/// The first name in Linux's list: `model name` on x86, `Processor`, `cpu model` or `uarch` elsewhere.
fn of_cpuinfo(text: &str) -> Option<String> {
    let named = ["model name", "Processor", "cpu model", "uarch"];
    let value = |line: &str| {
        let (key, value) = line.split_once(':')?;
        named.contains(&key.trim()).then(|| value.trim().to_owned())
    };
    text.lines().find_map(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linux_names_processors_in_several_ways() {
        let x86 = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 9R14\nmodel name\t: other\n";
        assert_eq!(of_cpuinfo(x86).as_deref(), Some("AMD EPYC 9R14"));
        assert_eq!(of_cpuinfo("system type : x\ncpu model : MIPS 24Kc\n").as_deref(), Some("MIPS 24Kc"));
        assert_eq!(of_cpuinfo("processor : 0\nBogoMIPS : 48.00\n"), None);
    }
}
