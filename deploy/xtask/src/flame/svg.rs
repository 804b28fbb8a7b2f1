//! Drawing: a box for each function, as wide as its share of the samples, on top of its caller.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::fold::KERNEL;

/// Sizes in pixels.
const WIDTH: f64 = 1200.0;
const MARGIN: f64 = 10.0;
const ROW: f64 = 17.0;
const HEAD: f64 = 62.0;
/// Of one letter in the boxes.
const LETTER: f64 = 6.65;
/// Narrower boxes are left out, and what stands on them.
const NARROWEST: f64 = 0.7;

/// Whose code a box is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Thread,
    Ours,
    Kernel,
    Other,
}

/// Class in the style sheet, colour, words in the legend.
const OWNERS: [(Owner, &str, &str, &str); 4] = [
    (Owner::Thread, "t", "#d8dee6", "thread"),
    (Owner::Ours, "c", "#f5a35c", "Corelane"),
    (Owner::Other, "o", "#f6dd8b", "libraries"),
    (Owner::Kernel, "k", "#9fc3e6", "kernel"),
];

/// Crates of this repository, as they are written in paths, and its allocator's crate not.
const OUR_CRATES: [&str; 7] =
    ["cluster", "codec", "proto", "gateway", "logic_svc", "standalone", "corelane"];

/// A function where it was called, and what it called.
#[derive(Debug, Default)]
struct Node<'a> {
    samples: u64,
    calls: BTreeMap<&'a str, Node<'a>>,
}

impl<'a> Node<'a> {
    fn add(&mut self, stack: &'a str, count: u64) {
        self.samples += count;
        let mut node = self;
        for name in stack.split(';') {
            node = node.calls.entry(name).or_default();
            node.samples += count;
        }
    }
}

/// A box on the page.
#[derive(Debug, PartialEq)]
struct Frame<'a> {
    name: &'a str,
    samples: u64,
    /// 0 stands at the bottom.
    level: usize,
    left: f64,
    width: f64,
}

/// Draws folded stacks. `caption`: title and details.
pub(super) fn draw<'a>(
    stacks: impl Iterator<Item = (&'a str, u64)>,
    caption: &[String; 2],
) -> String {
    let mut root = Node::default();
    stacks.for_each(|(stack, count)| root.add(stack, count));
    let mut frames = Vec::new();
    if root.samples > 0 {
        let scale = (WIDTH - 2.0 * MARGIN) / root.samples as f64;
        place(&root, 0, MARGIN, scale, &mut frames);
    }
    let levels = frames.iter().map(|frame| frame.level + 1).max().unwrap_or(0);
    let height = HEAD + levels as f64 * ROW + MARGIN;
    let mut page = head(caption, height);
    for frame in &frames {
        let top = height - MARGIN - (frame.level + 1) as f64 * ROW;
        write_box(&mut page, frame, top, root.samples);
    }
    page + "</svg>\n"
}

/// Places what `node` called side by side, and on each what that called.
fn place<'a>(
    node: &Node<'a>,
    level: usize,
    mut left: f64,
    scale: f64,
    frames: &mut Vec<Frame<'a>>,
) {
    for (name, called) in &node.calls {
        let width = called.samples as f64 * scale;
        if width >= NARROWEST {
            frames.push(Frame { name, samples: called.samples, level, left, width });
            place(called, level + 1, left, scale, frames);
        }
        left += width;
    }
}

fn head([title, details]: &[String; 2], height: f64) -> String {
    let mut page = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         width=\"{WIDTH}\" height=\"{height}\">\n<style>\n\
         text{{font:11px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#1c2128;\
         pointer-events:none}}\n\
         .h{{font:600 16px system-ui,sans-serif}} .d{{font:12px system-ui,sans-serif;fill:#57606a}}\n\
         rect{{stroke:#fff;stroke-width:.6}} g:hover rect{{stroke:#1c2128;stroke-width:1}}\n"
    );
    for (_, class, colour, _) in OWNERS {
        let _ = writeln!(page, ".{class}{{fill:{colour}}}");
    }
    let _ = write!(
        page,
        "</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text class=\"h\" x=\"{MARGIN}\" y=\"24\">{}</text>\n\
         <text class=\"d\" x=\"{MARGIN}\" y=\"44\">{}</text>\n",
        escaped(title),
        escaped(details)
    );
    let mut left = WIDTH - MARGIN - 90.0 * OWNERS.len() as f64;
    for (_, class, _, words) in OWNERS {
        let _ = writeln!(
            page,
            "<rect class=\"{class}\" x=\"{left}\" y=\"13\" width=\"14\" height=\"14\"/>\
             <text class=\"d\" x=\"{}\" y=\"24\">{words}</text>",
            left + 20.0
        );
        left += 90.0;
    }
    page
}

fn write_box(page: &mut String, frame: &Frame<'_>, top: f64, all: u64) {
    let Frame { name, samples, level, left, width } = frame;
    let owner = owner(name, *level);
    let class = OWNERS.iter().find(|(of, ..)| *of == owner).map_or("o", |(_, class, ..)| class);
    let name = name.strip_suffix(KERNEL).unwrap_or(name);
    let share = 100.0 * *samples as f64 / all as f64;
    let _ = write!(
        page,
        "<g><title>{} ({samples} samples, {share:.1}%)</title>\
         <rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.0}\" width=\"{width:.1}\" height=\"{}\"/>",
        escaped(name),
        ROW - 1.0
    );
    let letters = ((width - 6.0) / LETTER).max(0.0) as usize;
    if letters >= 3 {
        let (x, y) = (left + 3.0, top + 12.0);
        let words = escaped(&label(name, share, letters));
        let _ = write!(page, "<text x=\"{x:.1}\" y=\"{y:.0}\">{words}</text>");
    }
    page.push_str("</g>\n");
}

fn owner(name: &str, level: usize) -> Owner {
    if level == 0 {
        return Owner::Thread;
    }
    if name.ends_with(KERNEL) {
        return Owner::Kernel;
    }
    // `<gateway::shard::Shard as core::ops::Drop>::drop` is ours, `core::ptr::drop<gateway::..>`
    // is not.
    let path = name.trim_start_matches(['<', '&', '(', '*']);
    let crate_name = path.split("::").next().unwrap_or(path);
    if OUR_CRATES.contains(&crate_name) { Owner::Ours } else { Owner::Other }
}

/// The name, with its share where there is room.
fn label(name: &str, share: f64, letters: usize) -> String {
    let with_share = format!("{name} {share:.0}%");
    if with_share.chars().count() <= letters { with_share } else { shortened(name, letters) }
}

/// The name in at most so many letters. A path loses its first parts before its last.
fn shortened(name: &str, letters: usize) -> String {
    let mut rest = name;
    let plain_path = !name.contains(['<', '(', ' ']);
    while plain_path && rest.chars().count() > letters {
        match rest.split_once("::") {
            Some((_, inner)) => rest = inner,
            None => break,
        }
    }
    if rest.chars().count() <= letters {
        return rest.to_owned();
    }
    let kept: String = rest.chars().take(letters - 1).collect();
    kept + "…"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    const STACKS: [(&str, u64); 3] =
        [("t;a;b", 30), ("t;a;tcp_poll_[k]", 60), ("t;<gateway::X as Y<u8>>::f", 10)];

    fn frames(stacks: &[(&'static str, u64)]) -> Vec<Frame<'static>> {
        let mut root = Node::default();
        stacks.iter().for_each(|(stack, count)| root.add(stack, *count));
        let mut frames = Vec::new();
        place(&root, 0, 0.0, 1.0, &mut frames);
        frames
    }

    #[test]
    fn widths_are_shares_and_callees_stand_on_their_callers() {
        let frames = frames(&STACKS);
        let of = |name: &str| frames.iter().find(|frame| frame.name == name).unwrap();
        assert_eq!((of("t").left, of("t").width, of("t").level), (0.0, 100.0, 0));
        let other = of("<gateway::X as Y<u8>>::f");
        assert_eq!((other.left, other.width, other.level), (0.0, 10.0, 1));
        assert_eq!((of("a").left, of("a").width, of("a").samples), (10.0, 90.0, 90));
        assert_eq!((of("b").left, of("b").width, of("b").level), (10.0, 30.0, 2));
        assert_eq!((of("tcp_poll_[k]").left, of("tcp_poll_[k]").width), (40.0, 60.0));
    }

    #[test]
    fn what_is_too_narrow_is_left_out_with_all_that_stands_on_it() {
        let wide = (0..5_000).map(|_| ("t;wide", 1));
        let page = draw(wide.chain([("t;thin;thinner", 1)]), &Default::default());
        assert!(page.contains(">wide 100%<") && !page.contains("thin"), "{page}");
    }

    #[test]
    fn the_page_is_well_formed_and_names_everything() {
        let caption = ["a < b".to_owned(), "\"x\" & y".to_owned()];
        let page = draw(STACKS.into_iter(), &caption);
        assert!(page.contains("a &lt; b") && page.contains("&quot;x&quot; &amp; y"));
        assert!(page.contains("<title>&lt;gateway::X as Y&lt;u8&gt;&gt;::f (10 samples, 10.0%)"));
        assert!(page.contains("<title>tcp_poll (60 samples, 60.0%)"));
        assert_eq!(page.matches("<g>").count(), 5);
        assert_eq!(page.matches("<g>").count(), page.matches("</g>").count());
        assert_eq!(page.matches("<text").count(), page.matches("</text>").count());
        assert!(page.starts_with("<svg ") && page.ends_with("</svg>\n"));
    }

    #[test]
    fn nothing_recorded_is_an_empty_page() {
        assert!(draw(std::iter::empty(), &Default::default()).ends_with("</svg>\n"));
    }

    #[test]
    fn code_belongs_to_somebody() {
        for (name, level, expected) in [
            ("shard-0", 0, Owner::Thread),
            ("gateway::shard::turn::Shard::turn", 1, Owner::Ours),
            ("<codec::ws::Decoder as core::fmt::Debug>::fmt", 1, Owner::Ours),
            ("core::ptr::drop_in_place<gateway::X>", 1, Owner::Other),
            ("__memmove_avx_unaligned_erms", 1, Owner::Other),
            ("tcp_sendmsg_[k]", 1, Owner::Kernel),
        ] {
            assert_eq!(owner(name, level), expected, "{name}");
        }
    }

    #[test]
    fn a_label_says_its_share_where_there_is_room() {
        assert_eq!(label("tcp_poll", 12.4, 12), "tcp_poll 12%");
        assert_eq!(label("tcp_poll", 12.4, 11), "tcp_poll");
    }

    #[test]
    fn long_names_keep_their_end() {
        assert_eq!(shortened("gateway::shard::turn::Shard::turn", 40).len(), 33);
        assert_eq!(shortened("gateway::shard::turn::Shard::turn", 12), "Shard::turn");
        assert_eq!(shortened("gateway::shard::turn::Shard::turn", 3), "tu…");
        assert_eq!(shortened("<a::B as c::D>::e", 6), "<a::B…");
    }
}
