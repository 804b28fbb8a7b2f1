//! Folding: samples with the same stack become one line `thread;outer;inner count`.

use std::collections::BTreeMap;

/// Marks functions of the kernel.
pub(super) const KERNEL: &str = "_[k]";
/// What perf writes for an address that belongs to no function.
const UNKNOWN: &str = "[unknown]";
/// Kernel addresses are in the upper half.
const UPPER_HALF: u64 = 1 << 63;

/// Stacks and how often each was seen.
#[derive(Debug, Default)]
pub(super) struct Fold {
    counts: BTreeMap<String, u64>,
    /// Processes by id, whose threads stand under their name.
    processes: BTreeMap<u32, String>,
    /// The sample being read: its thread, its functions from the innermost out.
    thread: String,
    functions: Vec<String>,
}

impl Fold {
    /// Of several processes, each with its name.
    pub(super) fn of(processes: BTreeMap<u32, String>) -> Self {
        Self { processes, ..Self::default() }
    }

    /// Takes one line of `perf script --fields comm,pid,tid,ip,sym`. An empty one ends a sample.
    pub(super) fn read(&mut self, line: &str) {
        if line.trim().is_empty() {
            self.finish();
        } else if line.starts_with([' ', '\t']) {
            self.functions.extend(function(line));
        } else {
            // A sample without functions ends at the next one's head.
            self.finish();
            let (name, ids) = line.trim_end().rsplit_once(' ').unwrap_or((line, ""));
            let process =
                ids.split('/').next().and_then(|id| self.processes.get(&id.parse().ok()?));
            let name = plain(name.trim());
            self.thread =
                process.map_or(name.clone(), |process| format!("{};{name}", plain(process)));
        }
    }

    fn finish(&mut self) {
        // How a thread comes to its first function is the same for all, and as often unknown.
        while self.functions.last().is_some_and(|name| is_entry(name)) {
            self.functions.pop();
        }
        let functions = std::mem::take(&mut self.functions);
        let thread = std::mem::take(&mut self.thread);
        if !thread.is_empty() {
            let stack: Vec<String> =
                [thread].into_iter().chain(functions.into_iter().rev()).collect();
            *self.counts.entry(stack.join(";")).or_default() += 1;
        }
    }

    /// Stacks with their counts, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.counts.iter().map(|(stack, count)| (stack.as_str(), *count))
    }

    /// All samples.
    pub(super) fn samples(&self) -> u64 {
        self.counts.values().sum()
    }

    /// One line for each stack.
    pub(super) fn text(&self) -> String {
        self.iter().map(|(stack, count)| format!("{stack} {count}\n")).collect()
    }
}

/// Whether a function only leads from the thread's start to its own code.
fn is_entry(name: &str) -> bool {
    const STARTS: [&str; 9] = [
        UNKNOWN,
        "_start",
        "__libc_start",
        "start_thread",
        "clone3",
        "std::rt::lang_start",
        "std::panicking::",
        "std::sys::backtrace::__rust_begin_short_backtrace",
        "core::ops::function::FnOnce::call_once",
    ];
    name == "main"
        || name.ends_with("::thread_start")
        || STARTS.iter().any(|start| name.starts_with(start))
}

/// The function in a line such as `   ffffffff82028625 tcp_push`.
fn function(line: &str) -> Option<String> {
    let (address, name) = line.trim().split_once(' ')?;
    let address = u64::from_str_radix(address, 16).ok()?;
    let name = plain(without_hash(name.trim()));
    Some(if address >= UPPER_HALF { name + KERNEL } else { name })
}

/// Without the hash at the end of a Rust name: `::h0123456789abcdef`.
fn without_hash(name: &str) -> &str {
    let hash = |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match name.rsplit_once("::h") {
        Some((path, end)) if hash(end) => path,
        _ => name,
    }
}

/// The signs of the format itself may not stand in a name.
fn plain(name: &str) -> String {
    name.replace(';', ":").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(text: &str) -> String {
        let mut fold = Fold::default();
        text.lines().for_each(|line| fold.read(line));
        fold.read("");
        fold.text()
    }

    #[test]
    fn equal_stacks_are_one_line_from_the_outermost_in() {
        let sample = "shard-0 16640/16643 \n\
            \tffffffff8200bfb4 tcp_poll\n\
            \t           ccb04 gateway::shard::turn::Shard::turn::h0123456789abcdef\n\
            \t           ccb05 <core::iter::Map<I,F> as core::iter::Iterator>::next\n\
            \t             400 [unknown]\n\
            \t               0 [unknown]\n\n";
        let expected = "shard-0;<core::iter::Map<I,F> as core::iter::Iterator>::next;\
            gateway::shard::turn::Shard::turn;tcp_poll_[k] 2\n";
        assert_eq!(fold(&sample.repeat(2)), expected);
    }

    #[test]
    fn threads_of_a_named_process_stand_under_its_name() {
        let mut fold = Fold::of(BTreeMap::from([(7, "kafka".to_owned())]));
        let text = "data-plane 7/9 \n\t 1 a\n\nshard-0 8/9 \n\t 1 a\n";
        text.lines().for_each(|line| fold.read(line));
        fold.read("");
        assert_eq!(fold.text(), "kafka;data-plane;a 1\nshard-0;a 1\n");
    }

    #[test]
    fn threads_stand_apart_and_unknown_functions_inside_stay() {
        let text = "tokio runtime w 5/7 \n\t 1 a\n\t 2 [unknown]\n\t 3 b\n\nshard-0 5/8 \n\t 1 a\n";
        assert_eq!(fold(text), "shard-0;a 1\ntokio runtime w;b;[unknown];a 1\n");
    }

    #[test]
    fn a_sample_without_functions_counts_for_its_thread() {
        assert_eq!(fold("it 7 \n\nit 7 \nit 7 \n\t 1 a;b\n"), "it 2\nit;a:b 1\n");
        assert_eq!(fold("\n\n"), "");
    }

    #[test]
    fn the_way_into_a_thread_is_left_out() {
        let text = "it 7 \n\t 1 main_loop\n\t 1 std::panicking::try\n\t 1 gateway::run\n\
            \t 1 std::sys::backtrace::__rust_begin_short_backtrace\n\
            \t 1 <std::sys::thread::unix::Thread>::new::thread_start\n\t 1 start_thread\n";
        assert_eq!(fold(text), "it;gateway::run;std::panicking::try;main_loop 1\n");
    }

    #[test]
    fn only_a_hash_is_cut_off() {
        assert_eq!(without_hash("a::h0123456789abcdef"), "a");
        assert_eq!(without_hash("a::hash"), "a::hash");
        assert_eq!(without_hash("a::h0123456789abcdeg"), "a::h0123456789abcdeg");
    }
}
