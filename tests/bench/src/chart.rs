//! The figures as a picture: one panel for each medium, one bar for each server at three depths. Two panels side by side,
//! so that it is still readable on a page of text.

use crate::figures::Figures;
use crate::peers::{Medium, OURS};
use std::fmt::Write;

const CASES: [&str; 3] = ["randread-1", "randread-32", "randread-128"];
const PANEL: usize = 380;
const BAR: usize = 14;
const LABEL: usize = 120;
const TOP: usize = 44;
const COLUMNS: usize = 2;

/// An SVG of requests per second, or none if nothing was measured.
pub(crate) fn svg(figures: &Figures) -> Option<String> {
    let media = Medium::ALL.into_iter();
    let media: Vec<Medium> = media.filter(|m| !figures.peers(*m).is_empty()).collect();
    let rows: Vec<usize> = media
        .chunks(COLUMNS)
        .map(|row| TOP + 10 + row.iter().map(|m| height(figures, *m)).max().unwrap_or(0))
        .collect();
    if rows.is_empty() {
        return None;
    }
    let (width, height) = (COLUMNS * PANEL, rows.iter().sum::<usize>());
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let mut top = 0;
    for (row, high) in media.chunks(COLUMNS).zip(rows) {
        for (column, medium) in row.iter().enumerate() {
            panel(&mut svg, figures, *medium, (column * PANEL + 10, top));
        }
        top += high;
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

fn height(figures: &Figures, medium: Medium) -> usize {
    CASES.len() * (figures.peers(medium).len() * BAR + 24)
}

fn panel(svg: &mut String, figures: &Figures, medium: Medium, (left, top): (usize, usize)) {
    let title = format!("{medium}: 4 KiB random reads, thousand/s");
    text(svg, (left, top + 20), "14", &title);
    let peers = figures.peers(medium);
    let mut y = top + TOP;
    for case in CASES {
        let speeds: Vec<Option<f64>> = peers
            .iter()
            .map(|p| figures.iops(medium, case, p))
            .collect();
        let most = speeds
            .iter()
            .flatten()
            .fold(1.0, |most: f64, speed| most.max(*speed));
        text(svg, (left, y), "11", &case.replace("randread-", "depth "));
        y += 6;
        for (peer, speed) in peers.iter().zip(speeds) {
            let Some(speed) = speed else { continue };
            text(svg, (left, y + 10), "11", peer);
            let long = (PANEL - LABEL - 70) as f64 * speed / most;
            let colour = if *peer == OURS { "#1b7837" } else { "#9aa5b1" };
            let (x, thick) = (left + LABEL, BAR - 3);
            let _ = writeln!(
                svg,
                "<rect x=\"{x}\" y=\"{y}\" width=\"{long:.1}\" height=\"{thick}\" fill=\"{colour}\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{:.0}</text>",
                x as f64 + long + 4.0,
                y + 10,
                speed / 1e3
            );
            y += BAR;
        }
        y += 18;
    }
}

fn text(svg: &mut String, (x, y): (usize, usize), size: &str, words: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x}\" y=\"{y}\" font-size=\"{size}\">{words}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::tests::sample;
    use crate::machine::Placement;

    #[test]
    fn third_medium_begins_a_second_row() {
        assert!(svg(&Figures::default()).is_none());
        let mut figures = Figures::default();
        for medium in [Medium::Null, Medium::Malloc, Medium::Disk] {
            figures.add(medium, "randread-1", OURS, sample(1e6, Placement::Near));
        }
        let svg = svg(&figures).unwrap();
        assert!(svg.contains("width=\"760\""), "{svg}");
        let title = |medium| {
            let words = format!("font-size=\"14\">{medium}: ");
            let line = svg.lines().find(|line| line.contains(&words)).unwrap();
            line.split("font-size").next().unwrap().to_owned()
        };
        assert_eq!(title("null"), "<text x=\"10\" y=\"20\" ");
        assert_eq!(title("malloc"), "<text x=\"390\" y=\"20\" ");
        assert!(title("disk").starts_with("<text x=\"10\" y=\"1"));
    }
}
