//! Figures beside their goals: printed as they come, written as JSON at the end.

use std::env;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Value, json};

/// Everything measured.
#[derive(Default)]
pub(crate) struct Report {
    part: String,
    since: Option<Instant>,
    figures: Vec<Figure>,
}

struct Figure {
    part: String,
    what: String,
    value: f64,
    unit: &'static str,
    goal: Option<f64>,
}

impl Figure {
    fn is_met(&self) -> bool {
        self.goal.is_none_or(|goal| self.value <= goal)
    }
}

impl Report {
    /// The figures from now on belong to this part.
    pub(crate) fn begin(&mut self, part: &str) {
        println!("\n{part}");
        part.clone_into(&mut self.part);
        self.since = Some(Instant::now());
    }

    /// Says what is being done.
    pub(crate) fn say(&self, what: &str) {
        let seconds = self.since.map_or(0, |since| since.elapsed().as_secs());
        eprintln!("  {seconds:4} s {what}");
    }

    /// A figure without a goal.
    pub(crate) fn note(&mut self, what: &str, value: f64, unit: &'static str) {
        self.add(what, value, unit, None);
    }

    /// A figure that should be no more than `goal`.
    pub(crate) fn goal(&mut self, what: &str, value: f64, unit: &'static str, goal: f64) {
        self.add(what, value, unit, Some(goal));
    }

    fn add(&mut self, what: &str, value: f64, unit: &'static str, goal: Option<f64>) {
        let figure = Figure {
            part: self.part.clone(),
            what: what.to_owned(),
            value,
            unit,
            goal,
        };
        let goal = goal.map_or_else(String::new, |goal| format!("goal {goal}"));
        let verdict = if figure.is_met() { "" } else { "MISSED" };
        println!("  {what:52} {value:10.2} {unit:9} {goal:10} {verdict}");
        self.figures.push(figure);
    }

    /// Leaves all as JSON beside the build, and as a table; true when every goal is met.
    pub(crate) fn finish(&self) -> anyhow::Result<bool> {
        let figures = self.figures.iter().map(|it| {
            json!({
                "part": it.part, "what": it.what, "value": it.value, "unit": it.unit,
                "goal": it.goal, "met": it.is_met(),
            })
        });
        let all = Value::Array(figures.collect());
        let path = folder()?.join("propagation.json");
        fs::write(&path, format!("{all:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
        println!("\n| part | figure | value | goal |\n|---|---|---|---|");
        for it in &self.figures {
            let goal = it.goal.map_or_else(String::new, |goal| format!("≤ {goal}"));
            println!(
                "| {} | {} | {:.1} {} | {goal} |",
                it.part, it.what, it.value, it.unit
            );
        }
        println!("\n{}", path.display());
        Ok(self.figures.iter().all(Figure::is_met))
    }
}

/// Where builds go.
fn folder() -> anyhow::Result<PathBuf> {
    let bench = env::current_exe()?;
    // target/<profile>/deps/propagation-0123456789abcdef
    let target = bench.ancestors().nth(3);
    target
        .map(PathBuf::from)
        .context("this bench is in no target folder")
}

/// Milliseconds.
pub(crate) fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
