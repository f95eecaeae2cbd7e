//! Colours, dashes and markers: one table for every chart, light and dark.
//!
//! Invariant: an allocator has the same colour, dash and marker in every chart of a result. No two of the first eight
//! share a colour, and no two neighbours share a dash, so that neither colour vision nor a printer is needed.

use crate::run::ConfigFacts;

/// Red, green, blue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rgb(pub u8, pub u8, pub u8);

impl Rgb {
    /// This colour moved towards another; `share` from 0 (this one) to 1 (the other).
    #[must_use]
    pub fn mix(self, other: Self, share: f64) -> Self {
        let part = |a: u8, b: u8| (f64::from(a) + (f64::from(b) - f64::from(a)) * share).round() as u8;
        Self(part(self.0, other.0), part(self.1, other.1), part(self.2, other.2))
    }
}

/// What a thing is drawn in, by meaning. A theme turns it into a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ink {
    /// Titles and values.
    Text,
    /// Axes, their labels, captions.
    Muted,
    /// Grid lines.
    Grid,
    /// The background.
    Paper,
    /// What the program itself holds live, and the floors: never an allocator.
    Live,
    /// Collections.
    Band,
    /// An allocator, by its slot.
    Series(usize),
    /// Text about an allocator: its colour, dark enough to read.
    SeriesText(usize),
    /// How full a thing is: 0 is empty, 1 to [`FULL`] the steps of a scale.
    Fill(usize),
}

/// The last step of the scale of [`Ink::Fill`].
pub const FULL: usize = 8;

/// One set of colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// Name, as used in file names.
    pub name: &'static str,
    paper: Rgb,
    text: Rgb,
    muted: Rgb,
    grid: Rgb,
    live: Rgb,
    band: Rgb,
    series: [Rgb; 8],
    fill: [Rgb; FULL + 1],
}

/// For white pages.
pub const LIGHT: Theme = Theme {
    name: "light",
    paper: Rgb(255, 255, 255),
    text: Rgb(28, 32, 38),
    muted: Rgb(92, 99, 110),
    grid: Rgb(229, 231, 235),
    live: Rgb(150, 156, 165),
    band: Rgb(240, 196, 80),
    series: OKABE_ITO,
    fill: FILL,
};

/// For dark pages.
pub const DARK: Theme = Theme {
    name: "dark",
    paper: Rgb(22, 27, 34),
    text: Rgb(230, 237, 243),
    muted: Rgb(158, 167, 179),
    grid: Rgb(48, 54, 61),
    live: Rgb(125, 133, 144),
    band: Rgb(187, 150, 50),
    series: OKABE_ITO_ON_DARK,
    fill: FILL_ON_DARK,
};

/// The palette of Okabe and Ito without its yellow, which white paper swallows; pool, system, mimalloc and jemalloc
/// first.
const OKABE_ITO: [Rgb; 8] = [
    Rgb(0, 114, 178),
    Rgb(213, 94, 0),
    Rgb(0, 158, 115),
    Rgb(204, 121, 167),
    Rgb(86, 180, 233),
    Rgb(230, 159, 0),
    Rgb(110, 80, 160),
    Rgb(120, 100, 60),
];
const OKABE_ITO_ON_DARK: [Rgb; 8] = [
    Rgb(110, 150, 245),
    Rgb(240, 128, 48),
    Rgb(30, 200, 140),
    Rgb(222, 150, 190),
    Rgb(130, 205, 245),
    Rgb(240, 184, 60),
    Rgb(165, 140, 215),
    Rgb(190, 170, 120),
];

/// A grey for empty, then blues in equal steps of lightness away from the paper: the fuller, the stronger. One hue, so
/// that colour vision is not needed.
const FILL: [Rgb; FULL + 1] = [
    Rgb(221, 217, 211),
    Rgb(205, 226, 243),
    Rgb(159, 200, 232),
    Rgb(112, 174, 220),
    Rgb(71, 146, 202),
    Rgb(39, 118, 179),
    Rgb(1, 91, 153),
    Rgb(5, 65, 119),
    Rgb(6, 40, 86),
];
const FILL_ON_DARK: [Rgb; FULL + 1] = [
    Rgb(74, 70, 66),
    Rgb(40, 66, 98),
    Rgb(42, 88, 134),
    Rgb(40, 112, 171),
    Rgb(53, 136, 199),
    Rgb(74, 162, 223),
    Rgb(110, 186, 240),
    Rgb(157, 209, 248),
    Rgb(202, 232, 255),
];

/// Lengths of dash and gap in turn, pixels; empty is solid.
const DASHES: [&[f64]; 8] = [
    &[],
    &[7.0, 3.5],
    &[2.2, 2.8],
    &[10.0, 3.0, 2.2, 3.0],
    &[12.0, 4.0],
    &[4.5, 2.5],
    &[7.0, 2.5, 2.2, 2.5, 2.2, 2.5],
    &[1.5, 4.0],
];

/// Shape of a data point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// Round.
    Disc,
    /// Square on its side.
    Square,
    /// Square on its corner.
    Diamond,
    /// Triangle.
    Triangle,
}

/// Slots that never change hands.
const FIXED: [(&str, usize); 4] = [("pool", 0), ("system", 1), ("mimalloc", 2), ("jemalloc", 3)];

/// Slots with a colour of their own.
const COLOURS: usize = 8;

/// The slot of every configuration, in their order. Slots of the floors are never drawn. A slot that never changes
/// hands is given to another configuration only where its owner is absent and all other colours are used.
#[must_use]
pub fn slots(configs: &[ConfigFacts]) -> Vec<usize> {
    let fixed = |config: &ConfigFacts| FIXED.iter().find(|(name, _)| *name == config.name).map(|(_, slot)| *slot);
    let owned: Vec<usize> = configs.iter().filter_map(fixed).collect();
    let ownerless = (0..FIXED.len()).filter(|slot| !owned.contains(slot));
    let mut others = (FIXED.len()..COLOURS).chain(ownerless).chain(COLOURS..);
    let mut slot_of = |config: &ConfigFacts| match fixed(config) {
        Some(slot) => slot,
        None if config.floor => 0,
        None => others.next().unwrap_or(COLOURS),
    };
    configs.iter().map(&mut slot_of).collect()
}

/// Beyond the eighth slot the last four colours come again, each time with the next dash.
const fn colour_index(slot: usize) -> usize {
    if slot < COLOURS { slot } else { 4 + slot % 4 }
}

/// Dash of a slot.
#[must_use]
pub const fn dash(slot: usize) -> &'static [f64] {
    DASHES[if slot < COLOURS { slot } else { (slot + slot / 4 - 1) % 8 }]
}

/// Marker of a slot.
#[must_use]
pub const fn marker(slot: usize) -> Marker {
    [Marker::Disc, Marker::Square, Marker::Diamond, Marker::Triangle][slot % 4]
}

impl Theme {
    /// The colour of a meaning.
    #[must_use]
    pub fn colour(&self, ink: Ink) -> Rgb {
        match ink {
            Ink::Text => self.text,
            Ink::Muted => self.muted,
            Ink::Grid => self.grid,
            Ink::Paper => self.paper,
            Ink::Live => self.live,
            Ink::Band => self.band,
            Ink::Series(slot) => self.series[colour_index(slot)],
            Ink::SeriesText(slot) => self.series[colour_index(slot)].mix(self.text, 0.3),
            Ink::Fill(step) => self.fill[step.min(FULL)],
        }
    }
}

impl std::fmt::Display for Rgb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{:02x}{:02x}{:02x}", self.0, self.1, self.2)
    }
}

impl Theme {
    /// Its colours as declarations of CSS variables, those of allocators for the `slots` given.
    #[must_use]
    pub fn variables(&self, slots: &[usize]) -> String {
        let plain = [
            ("text", Ink::Text),
            ("muted", Ink::Muted),
            ("grid", Ink::Grid),
            ("paper", Ink::Paper),
            ("live", Ink::Live),
            ("band", Ink::Band),
        ];
        let plain = plain.into_iter().map(|(name, ink)| (name.to_owned(), ink));
        let fill = (0..=FULL).map(|step| (format!("fill-{step}"), Ink::Fill(step)));
        let series = slots.iter().flat_map(|slot| {
            [(format!("series-{slot}"), Ink::Series(*slot)), (format!("name-{slot}"), Ink::SeriesText(*slot))]
        });
        let colour = |ink| match ink {
            Ink::SeriesText(_) => self.readable(self.colour(ink)),
            ink => self.colour(ink),
        };
        plain.chain(fill).chain(series).map(|(name, ink)| format!("--{name}:{};", colour(ink))).collect()
    }

    /// A colour moved towards that of text, as little as makes it readable on paper (4.5 to 1, WCAG 2's AA).
    fn readable(&self, colour: Rgb) -> Rgb {
        let steps = (0..=20).map(|step| colour.mix(self.text, f64::from(step) / 20.0));
        steps.into_iter().find(|colour| contrast(*colour, self.paper) >= 4.6).unwrap_or(self.text)
    }
}

/// Contrast ratio as WCAG 2 defines it.
fn contrast(a: Rgb, b: Rgb) -> f64 {
    let linear = |c: u8| {
        let c = f64::from(c) / 255.0;
        if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    };
    let luminance = |c: Rgb| 0.2126 * linear(c.0) + 0.7152 * linear(c.1) + 0.0722 * linear(c.2);
    let (a, b) = (luminance(a) + 0.05, luminance(b) + 0.05);
    a.max(b) / a.min(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(name: &str) -> ConfigFacts {
        ConfigFacts { name: name.into(), ..ConfigFacts::default() }
    }

    #[test]
    fn the_four_keep_their_slots_wherever_they_stand() {
        let configs: Vec<_> = ["jemalloc", "lean", "pool", "tuned"].map(config).into();
        assert_eq!(slots(&configs), [3, 4, 0, 5]);
        let many: Vec<_> = ["a", "b", "c", "d", "e", "pool", "f", "g", "h", "i"].map(config).into();
        assert_eq!(slots(&many), [4, 5, 6, 7, 1, 0, 2, 3, 8, 9], "no colour twice while one is free");
    }

    #[test]
    fn sixteen_allocators_can_be_told_apart() {
        for theme in [LIGHT, DARK] {
            let looks: Vec<_> = (0..16).map(|slot| (theme.colour(Ink::Series(slot)), dash(slot))).collect();
            for (i, look) in looks.iter().enumerate() {
                assert!(!looks[..i].contains(look), "slot {i} looks like an earlier one in {}", theme.name);
            }
        }
    }

    #[test]
    fn the_fuller_the_stronger_in_steps_that_can_be_told_apart() {
        for theme in [LIGHT, DARK] {
            let strength = |step| contrast(theme.colour(Ink::Fill(step)), theme.paper);
            assert!(strength(0) >= 1.25 && strength(1) >= 1.25, "{}", theme.name);
            for step in 1..FULL {
                let apart = contrast(theme.colour(Ink::Fill(step)), theme.colour(Ink::Fill(step + 1)));
                assert!(strength(step + 1) > strength(step) && apart >= 1.2, "{}, step {step}: {apart}", theme.name);
            }
            // Empty is of another hue than the palest step: less blue, more red.
            let (Rgb(red, _, blue), Rgb(other_red, _, other_blue)) =
                (theme.colour(Ink::Fill(0)), theme.colour(Ink::Fill(1)));
            assert!(red > other_red && blue < other_blue, "{}", theme.name);
        }
    }

    #[test]
    fn text_can_be_read_on_its_paper() {
        for theme in [LIGHT, DARK] {
            for (ink, least) in [(Ink::Text, 7.0), (Ink::Muted, 4.5)] {
                assert!(contrast(theme.colour(ink), theme.paper) >= least, "{ink:?} in {}", theme.name);
            }
            for slot in 0..4 {
                let colour = theme.colour(Ink::SeriesText(slot));
                assert!(contrast(colour, theme.paper) >= 4.5, "slot {slot} in {}", theme.name);
            }
        }
    }

    #[test]
    fn every_name_on_a_page_can_be_read() {
        let slots: Vec<usize> = (0..12).collect();
        for theme in [LIGHT, DARK] {
            for slot in &slots {
                let colour = theme.readable(theme.colour(Ink::SeriesText(*slot)));
                assert!(contrast(colour, theme.paper) >= 4.5, "slot {slot} in {}", theme.name);
                assert!(theme.variables(&slots).contains(&format!("--name-{slot}:{colour};")));
            }
        }
    }
    fn linear(c: u8) -> f64 {
        let c = f64::from(c) / 255.0;
        if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    }

    type Matrix = [[f64; 3]; 3];

    fn times(matrix: &Matrix, v: [f64; 3]) -> [f64; 3] {
        matrix.map(|row| row.iter().zip(v).map(|(a, b)| a * b).sum())
    }

    /// Severity 1.0 of Machado, Oliveira and Fernandes (2009), "A physiologically-based model for simulation of color
    /// vision deficiency", on linear RGB; and sight without a deficiency.
    const SIGHTS: [(&str, Matrix); 4] = [
        ("full", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
        (
            "protanopia",
            [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        ),
        (
            "deuteranopia",
            [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        ),
        (
            "tritanopia",
            [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
        ),
    ];

    /// CIE L*a*b* (D65) of a colour as it is seen.
    fn lab(colour: Rgb, sight: &Matrix) -> [f64; 3] {
        let seen = times(sight, [colour.0, colour.1, colour.2].map(linear)).map(|c| c.clamp(0.0, 1.0));
        let xyz = times(
            &[[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]],
            seen,
        );
        let f = |t: f64| if t > 0.008856 { t.cbrt() } else { 7.787 * t + 16.0 / 116.0 };
        let [x, y, z] = [xyz[0] / 0.95047, xyz[1], xyz[2] / 1.08883].map(f);
        [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
    }

    fn distance(a: Rgb, b: Rgb, sight: &Matrix) -> f64 {
        let (a, b) = (lab(a, sight), lab(b, sight));
        a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
    }

    /// A difference of 2.3 is just noticeable. Any two of the four allocators differ by many times that, whatever the
    /// sight; where others come closer than they do, their dashes and markers tell them apart.
    #[test]
    fn colours_differ_for_every_sight_or_dash_and_marker_do() {
        const CLEARLY: f64 = 16.0;
        for theme in [LIGHT, DARK] {
            for (sight, matrix) in &SIGHTS {
                for (a, b) in (0..8).flat_map(|b| (0..b).map(move |a| (a, b))) {
                    let (one, other) = (theme.colour(Ink::Series(a)), theme.colour(Ink::Series(b)));
                    let apart = distance(one, other, matrix);
                    let what = format!("slots {a} and {b}, {}, {sight}: {apart:.1}", theme.name);
                    if b < FIXED.len() {
                        assert!(apart >= CLEARLY, "{what}");
                    }
                    assert!(apart >= CLEARLY || dash(a) != dash(b), "{what}, and the same dash");
                }
                for slot in 0..8 {
                    let from_paper = distance(theme.colour(Ink::Series(slot)), theme.paper, matrix);
                    assert!(from_paper >= CLEARLY, "slot {slot} on {} paper, {sight}: {from_paper:.1}", theme.name);
                }
            }
        }
    }

    #[test]
    fn the_distance_finds_colours_that_are_not_safe() {
        let (red, green) = (Rgb(200, 60, 40), Rgb(110, 120, 30));
        let [full, _, deuteranopia, _] = &SIGHTS;
        assert!(distance(red, green, &full.1) > 60.0 && distance(red, green, &deuteranopia.1) < 20.0);
    }
}
