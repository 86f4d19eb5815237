//! Figures: drawn as SVG by plotters, turned into PNG by resvg with a font of our own, so that they
//! look the same on every machine.

mod bars;
mod fat_tree;
mod lines;
mod palette;
mod small_multiples;

use std::path::Path;
use std::sync::Arc;

use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::drawing::{DrawingArea, IntoDrawingArea};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, FontStyle, IntoFont, RGBColor, TextStyle};
use resvg::tiny_skia::{Pixmap, Transform};
use resvg::usvg;

pub(crate) use bars::{Bar, BarChart, BarPart};
pub(crate) use fat_tree::FatTreeMap;
pub(crate) use lines::{Axis, Line, LineChart, Mark, Stroke};
pub(crate) use palette::{BLACK, BLUE, GREEN, GREY, ORANGE, PAPER, PURPLE, SKY, VERMILLION};
pub(crate) use small_multiples::{Panel, SmallMultiples};

use crate::outcome::CommandError;
use crate::output::write_file;
use palette::{INK, INK_SOFT};

/// Pixels of a PNG for each unit of its SVG: readable on screens with small pixels and in print.
const PNG_SCALE: f32 = 2.0;

const TITLE_SIZE: u32 = 19;
const SUBTITLE_SIZE: u32 = 14;
const LABEL_SIZE: u32 = 14;

/// Width of one character of the font, on average, in parts of its size.
const CHARACTER_WIDTH: f64 = 0.52;

/// A finished figure.
#[derive(Clone, Debug)]
pub(crate) struct Figure {
    /// Name of its files, without extension.
    pub(crate) name: &'static str,
    svg: String,
}

/// What figures are drawn on.
type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The error of drawing.
type DrawError<'a> = plotters::drawing::DrawingAreaErrorKind<
    <SVGBackend<'a> as plotters::prelude::DrawingBackend>::ErrorType,
>;

impl Figure {
    /// Draws a figure of this size.
    fn draw(
        name: &'static str,
        size: (u32, u32),
        draw: impl for<'a> FnOnce(&Canvas<'a>) -> Result<(), DrawError<'a>>,
    ) -> Self {
        let mut svg = String::new();
        {
            let canvas = SVGBackend::with_string(&mut svg, size).into_drawing_area();
            canvas
                .fill(&PAPER)
                .and_then(|()| draw(&canvas))
                .and_then(|()| canvas.present())
                .expect("a string takes whatever is drawn, and every chart has axes");
        }
        Self { name, svg }
    }

    /// The figure as SVG.
    pub(crate) fn svg(&self) -> &str {
        &self.svg
    }

    /// Writes the figure as SVG and as PNG.
    pub(crate) fn write_to(&self, folder: &Path) -> Result<(), CommandError> {
        let svg = folder.join(format!("{}.svg", self.name));
        write_file(&svg, self.svg.as_bytes())?;
        let png = folder.join(format!("{}.png", self.name));
        let pixels = self
            .png()
            .map_err(|reason| CommandError::Failed(format!("{}: {reason}", png.display())))?;
        write_file(&png, &pixels)
    }

    fn png(&self) -> Result<Vec<u8>, String> {
        let mut fonts = usvg::fontdb::Database::new();
        fonts.load_font_data(notosans::REGULAR_TTF.to_vec());
        fonts.load_font_data(notosans::BOLD_TTF.to_vec());
        fonts.set_sans_serif_family("Noto Sans");
        let options = usvg::Options {
            fontdb: Arc::new(fonts),
            ..usvg::Options::default()
        };
        let tree = usvg::Tree::from_str(&self.svg, &options).map_err(|error| error.to_string())?;
        let size = tree.size().to_int_size();
        let scaled = |side: u32| (side as f32 * PNG_SCALE) as u32;
        let mut pixels = Pixmap::new(scaled(size.width()), scaled(size.height()))
            .ok_or("a picture without pixels")?;
        let transform = Transform::from_scale(PNG_SCALE, PNG_SCALE);
        resvg::render(&tree, transform, &mut pixels.as_mut());
        pixels.encode_png().map_err(|error| error.to_string())
    }
}

/// How wide a text is, about, in pixels.
fn text_width(text: &str, size: u32) -> i32 {
    (text.chars().count() as f64 * f64::from(size) * CHARACTER_WIDTH) as i32
}

fn style(size: u32, colour: RGBColor, anchor: (HPos, VPos)) -> TextStyle<'static> {
    ("sans-serif", size)
        .into_font()
        .color(&colour.to_rgba())
        .pos(Pos::new(anchor.0, anchor.1))
}

fn bold(size: u32, colour: RGBColor, anchor: (HPos, VPos)) -> TextStyle<'static> {
    ("sans-serif", size)
        .into_font()
        .style(FontStyle::Bold)
        .color(&colour.to_rgba())
        .pos(Pos::new(anchor.0, anchor.1))
}

/// Draws title and subtitle at the top left.
fn draw_title<'a>(canvas: &Canvas<'a>, title: &str, subtitle: &str) -> Result<(), DrawError<'a>> {
    let top_left = (HPos::Left, VPos::Top);
    canvas.draw_text(title, &bold(TITLE_SIZE, INK, top_left), (16, 12))?;
    canvas.draw_text(
        subtitle,
        &style(SUBTITLE_SIZE, INK_SOFT, top_left),
        (16, 38),
    )
}
