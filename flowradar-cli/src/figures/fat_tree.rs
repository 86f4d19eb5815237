//! A map of a fat tree: switches by tier and pod, and the links that lost packets.

use std::collections::BTreeMap;

use flowradar_sim::{Node, SwitchId, Topology};
use plotters::element::{Circle, PathElement, Rectangle};
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::{Color, RGBColor, ShapeStyle};

use super::palette::{BLUE, GREY, INK, INK_SOFT, VERMILLION};
use super::{Canvas, DrawError, Figure, LABEL_SIZE, bold, draw_title, style, text_width};

const SIZE: (u32, u32) = (1000, 440);
const SIDES: (i32, i32) = (110, 970);
/// Heights of the rows of core, aggregation and edge switches.
const ROWS: [i32; 3] = [98, 238, 348];

/// A map of a fat tree.
#[derive(Clone, Debug)]
pub(crate) struct FatTreeMap<'a> {
    pub(crate) name: &'static str,
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) topology: &'a Topology,
    /// Packets that links lost, each way, and how many of the worst get a label.
    pub(crate) losses: BTreeMap<(SwitchId, SwitchId), u64>,
    pub(crate) labelled: usize,
}

impl FatTreeMap<'_> {
    /// Draws the map; none if the topology is no fat tree.
    pub(crate) fn draw(&self) -> Option<Figure> {
        let half = self.topology.fat_tree_k()? as i32 / 2;
        Some(Figure::draw(self.name, SIZE, |canvas| {
            self.draw_on(canvas, half)
        }))
    }

    fn draw_on<'a>(&self, canvas: &Canvas<'a>, half: i32) -> Result<(), DrawError<'a>> {
        draw_title(canvas, &self.title, &self.subtitle)?;
        let place = |switch: SwitchId| place(i32::from(switch.0), half);
        let faint = GREY.mix(0.28).stroke_width(1);
        for &[a, b] in self.topology.links() {
            if let (Node::Switch(a), Node::Switch(b)) = (a, b) {
                canvas.draw(&PathElement::new(vec![place(a), place(b)], faint))?;
            }
        }
        // The worst on top.
        let mut losses: Vec<_> = self.losses.iter().collect();
        losses.sort_by_key(|&(link, packets)| (packets, link));
        let most = losses.last().map_or(1, |&(_, &packets)| packets.max(1)) as f64;
        for &(&(from, to), &packets) in &losses {
            let part = (packets as f64 / most).sqrt();
            let stroke = VERMILLION
                .mix(0.25 + 0.75 * part)
                .stroke_width(1 + (4.0 * part) as u32);
            canvas.draw(&PathElement::new(vec![place(from), place(to)], stroke))?;
        }
        for switch in self.topology.switch_ids() {
            let filled = ShapeStyle::from(&BLUE).filled();
            canvas.draw(&Circle::new(
                place(switch),
                if half > 3 { 6 } else { 8 },
                filled,
            ))?;
        }
        let tiers = ["core", "aggregation", "edge"];
        for (tier, y) in tiers.into_iter().zip(ROWS) {
            let text = style(LABEL_SIZE, INK_SOFT, (HPos::Right, VPos::Center));
            canvas.draw_text(tier, &text, (SIDES.0 - 14, y))?;
        }
        for pod in 0..2 * half {
            let x = (edge_x(pod * half, half) + edge_x(pod * half + half - 1, half)) / 2;
            let text = style(LABEL_SIZE, INK_SOFT, (HPos::Center, VPos::Top));
            canvas.draw_text(&format!("pod {pod}"), &text, (x, ROWS[2] + 18))?;
        }
        for &(&(from, to), &packets) in losses.iter().rev().take(self.labelled) {
            let names = [self.topology.name(from), self.topology.name(to)];
            let text = format!("{} to {}: {packets} lost", names[0], names[1]);
            self.draw_label(canvas, &text, (place(from), place(to)))?;
        }
        let legend = "line width: packets lost on the link, as the decoded counters say";
        let text = style(LABEL_SIZE, INK, (HPos::Left, VPos::Center));
        let y = SIZE.1 as i32 - 28;
        let stroke = VERMILLION.stroke_width(4);
        canvas.draw(&PathElement::new(
            vec![(SIDES.0, y), (SIDES.0 + 36, y)],
            stroke,
        ))?;
        canvas.draw_text(legend, &text, (SIDES.0 + 46, y))
    }

    fn draw_label<'a>(
        &self,
        canvas: &Canvas<'a>,
        text: &str,
        ends: ((i32, i32), (i32, i32)),
    ) -> Result<(), DrawError<'a>> {
        let ((from_x, from_y), (to_x, to_y)) = ends;
        let width = text_width(text, LABEL_SIZE) + 16;
        let middle = (from_x + to_x) / 2;
        let x = middle.clamp(SIDES.0 + width / 2, SIDES.1 - width / 2);
        let y = (from_y + to_y) / 2;
        let corners = [(x - width / 2, y - 12), (x + width / 2, y + 12)];
        let paper: RGBColor = super::PAPER;
        canvas.draw(&Rectangle::new(corners, ShapeStyle::from(&paper).filled()))?;
        canvas.draw(&Rectangle::new(corners, VERMILLION.stroke_width(1)))?;
        canvas.draw_text(
            text,
            &bold(LABEL_SIZE, INK, (HPos::Center, VPos::Center)),
            (x, y),
        )
    }
}

/// Where a switch stands: edge, aggregation and core switches are numbered in this order.
fn place(switch: i32, half: i32) -> (i32, i32) {
    let tier = 2 * half * half;
    if switch < tier {
        (edge_x(switch, half), ROWS[2])
    } else if switch < 2 * tier {
        (edge_x(switch - tier, half), ROWS[1])
    } else {
        let cores = half * half;
        let (left, right) = SIDES;
        let core = switch - 2 * tier;
        (
            left + (right - left) * (2 * core + 1) / (2 * cores),
            ROWS[0],
        )
    }
}

/// Where an edge switch, or the aggregation switch above it, stands. Pods stand apart.
fn edge_x(index: i32, half: i32) -> i32 {
    let (left, right) = SIDES;
    let pod_width = (right - left) / (2 * half);
    let (pod, place) = (index / half, index % half);
    // One step between switches, one and a half between pods.
    let step = f64::from(pod_width) / (f64::from(half) + 0.5);
    left + pod * pod_width + (step * (f64::from(place) + 0.75)) as i32
}
