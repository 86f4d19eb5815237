//! A page that explains results: one file, which any browser shows without a network.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::figures::Figure;

/// A page of sections.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    pub(crate) title: &'static str,
    /// What the page is about.
    pub(crate) introduction: Markup,
    pub(crate) sections: Vec<Section>,
}

/// A part of a page.
#[derive(Clone, Debug)]
pub(crate) struct Section {
    /// For links within the page.
    pub(crate) id: &'static str,
    pub(crate) title: String,
    pub(crate) content: Markup,
}

impl Page {
    /// The page as HTML.
    pub(crate) fn html(&self) -> String {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.title) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    header {
                        h1 { (self.title) }
                        (self.introduction)
                        nav {
                            @for section in &self.sections {
                                a href={ "#" (section.id) } { (section.title) }
                            }
                        }
                    }
                    main {
                        @for section in &self.sections {
                            section id=(section.id) {
                                h2 { (section.title) }
                                (section.content)
                            }
                        }
                    }
                    footer { "Made by flowradar " (env!("CARGO_PKG_VERSION")) "." }
                }
            }
        };
        page.into_string()
    }
}

/// A figure with the sentence that says what it shows.
pub(crate) fn figure(figure: &Figure, caption: &str) -> Markup {
    html! {
        figure {
            div.drawing role="img" aria-label=(caption) { (PreEscaped(figure.svg())) }
            figcaption {
                (caption) " (" a href={ (figure.name) ".svg" } { "SVG" } ", "
                a href={ (figure.name) ".png" } { "PNG" } ")"
            }
        }
    }
}

/// A long table that opens on a click.
pub(crate) fn folded(title: &str, content: &Markup) -> Markup {
    html! { details { summary { (title) } (content) } }
}

/// The figures' colours are those of `figures/palette.rs`; ink, paper and grid follow the page.
const STYLE: &str = "\
:root { --paper: #ffffff; --ink: #222222; --soft: #666666; --grid: #e4e4e4; --link: #0072b2;
  --good: #00795a; --bad: #b54a00; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16191d; --ink: #e8e8e8; --soft: #a5a9ae; --grid: #33383e; --link: #6bbdf0;
    --good: #3cc79f; --bad: #ff9a52; }
}
body { background: var(--paper); color: var(--ink); margin: 2rem auto; max-width: 64rem;
  padding: 0 1.2rem; font: 16px/1.55 system-ui, 'Segoe UI', 'Noto Sans', sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin-bottom: .4rem; }
h2 { font-size: 1.35rem; margin: 3rem 0 .6rem; padding-top: 1rem; border-top: 1px solid var(--grid); }
p { max-width: 46rem; }
a { color: var(--link); }
nav { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; margin-top: 1.2rem; }
figure { margin: 1.4rem 0; }
figcaption { color: var(--soft); max-width: 46rem; }
.drawing svg { display: block; width: 100%; height: auto; }
.drawing [fill='#FFFFFF']:is(rect) { fill: var(--paper); stroke: none; }
.drawing rect[stroke='#FFFFFF'] { stroke: none; }
.drawing [fill='#222222'] { fill: var(--ink); }
.drawing [stroke='#222222'] { stroke: var(--ink); }
.drawing [fill='#666666'] { fill: var(--soft); }
.drawing [stroke='#666666'] { stroke: var(--soft); }
.drawing [stroke='#E4E4E4'] { stroke: var(--grid); }
.table { overflow-x: auto; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .93rem; }
caption { text-align: left; color: var(--soft); padding-bottom: .4rem; }
th, td { padding: .3rem .8rem .3rem 0; text-align: left; border-bottom: 1px solid var(--grid);
  vertical-align: top; }
th { font-weight: 600; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
details { margin: 1rem 0; }
summary { cursor: pointer; color: var(--link); }
.good { color: var(--good); font-weight: 600; }
.bad { color: var(--bad); font-weight: 600; }
code { font-size: .92em; background: var(--grid); padding: .1em .35em; border-radius: .25em; }
footer { margin: 4rem 0 2rem; color: var(--soft); font-size: .9rem; }
";
