//! 3,000 new routes in turn, in a cluster with nothing else.

use crate::probe::Propagation;
use crate::report::Report;
use crate::stage::Stage;
use crate::stages::Stages;
use crate::usage::{Meter, memory};

const ROUTES: usize = 3_000;

pub(crate) async fn measure(stage: &Stage, report: &mut Report) -> anyhow::Result<()> {
    let shim = Meter::start(stage.shim.process.id())?;
    let data_plane = Meter::start(stage.data_plane.process.id())?;
    let stages = Stages::start(stage).await?;
    let propagation = Propagation::measure(stage, report, "route", ROUTES).await?;
    propagation.tell(report, 15.0);
    stages.tell(stage, report, &propagation.routes);
    report.note("CPU of the shim", shim.seconds()?, "s");
    report.note("CPU of the data plane", data_plane.seconds()?, "s");
    let process = stage.data_plane.process.id();
    report.note("data plane with 3,000 routes", memory(process)?, "MiB");
    report.note(
        "shim with 3,000 routes",
        memory(stage.shim.process.id())?,
        "MiB",
    );
    Ok(())
}
