//! A sequence of launches recorded once and replayed.

use std::cell::{Cell, OnceCell};

use burn::backend::wgpu::CubeBackend;
use burn::tensor::{Int, Tensor};
use cubecl::client::{Client, Graph};

use crate::raw_loop::{Launches, RawLoop, RawQueue, submitted};
use crate::vulkan::Commands;
use crate::{Error, Result};

thread_local! {
    static RECORDINGS: Cell<u64> = const { Cell::new(0) };
}

/// Steps recorded by this thread so far: tests count with it.
pub fn recording_count() -> u64 {
    RECORDINGS.get()
}

/// Launches that run again on the same buffers, prebuilt: a replay looks nothing up, writes
/// nothing and allocates nothing.
pub struct StepGraph {
    /// What replays it on Vulkan.
    commands: Option<Commands>,
    /// What replays it elsewhere, made when it is wanted.
    raw_loop: OnceCell<RawLoop>,
    /// `None` if it launches what is not our own: then `graph` replays it.
    launches: Option<Launches>,
    /// Keeps every page that the step touches, whatever replays it.
    graph: Graph,
    /// Whether launches may wait that the next replay must come after.
    is_behind: Cell<bool>,
    client: Client,
    n_dispatches: usize,
}

impl StepGraph {
    /// Runs `step` once for real, then records it without running it. `step` must touch the same
    /// buffers every time and do nothing but launch; `anchor` says on which device, and `raw` is
    /// [`crate::Compute::raw_queue`]. Capture and replay belong on one thread.
    ///
    /// # Errors
    /// What `step` returns, or [`Error::Device`] if the device cannot record.
    pub fn capture<E: From<Error>>(
        anchor: &Tensor<1, Int>,
        raw: Option<&RawQueue>,
        step: impl Fn() -> std::result::Result<(), E>,
    ) -> std::result::Result<Self, E> {
        RECORDINGS.set(RECORDINGS.get() + 1);
        let client = client_of(anchor)?;
        client.graph_prepare().map_err(|e| failed(&e))?;
        let warm = step();
        client.start_capture().map_err(|e| failed(&e))?;
        let before = crate::dispatch_count();
        let again = || warm.and_then(|()| step());
        let (recorded, launches) = match raw {
            Some(raw) => raw.note(again),
            None => (again(), Ok(None)),
        };
        let n_dispatches = (crate::dispatch_count() - before) as usize;
        let graph = client.stop_capture().map_err(|e| failed(&e));
        recorded?;
        let (graph, launches) = (graph?, launches?);
        let commands = launches.as_ref().map(Launches::record).transpose()?.flatten();
        let (raw_loop, is_behind) = (OnceCell::new(), Cell::new(true));
        Ok(Self { commands, raw_loop, launches, graph, is_behind, client, n_dispatches })
    }

    /// Runs the step `times` times more and hands them to the device in one submission, if CubeCL does not cut it
    /// ([`crate::TASKS_MAX`]); does not wait for it.
    ///
    /// # Errors
    /// [`Error::Device`] if the device was lost.
    pub fn replay(&self, times: usize) -> Result<()> {
        if self.launches.is_some() && self.is_behind.take() {
            self.client.flush().map_err(|e| failed(&e))?;
        }
        if let Some(commands) = &self.commands {
            commands.run(times);
            return Ok(());
        }
        if let Some(raw_loop) = self.raw_loop() {
            raw_loop.run(times);
            return Ok(());
        }
        // CubeCL submits each replay by itself, and cuts long ones.
        submitted(times * self.n_dispatches.div_ceil(crate::TASKS_MAX));
        for _ in 0..times {
            // SAFETY: the graph guards every page it touches, and all work on its buffers is issued
            // by the thread that captured it, so nothing races with a replay.
            unsafe { self.graph.replay() }.map_err(|e| failed(&e))?;
        }
        self.client.flush().map_err(|e| failed(&e))
    }

    /// Notes that something was launched or written since the last replay that the next one reads.
    pub fn set_behind(&self) {
        self.is_behind.set(true);
    }

    /// Whether a command buffer of Vulkan replays it.
    pub fn is_recorded(&self) -> bool {
        self.commands.is_some()
    }

    /// The same launches through wgpu alone, if all of them are our own.
    pub fn raw_loop(&self) -> Option<&RawLoop> {
        let launches = self.launches.as_ref()?;
        Some(self.raw_loop.get_or_init(|| RawLoop::new(launches)))
    }

    /// Kernels that one replay dispatches, as counted while it was recorded.
    pub fn n_dispatches(&self) -> usize {
        self.n_dispatches
    }
}

fn client_of(tensor: &Tensor<1, Int>) -> Result<Client> {
    let primitive = tensor.clone().try_into_primitive::<CubeBackend>();
    Ok(primitive.map_err(|e| Error::Device { reason: format!("no graphs here: {e:?}") })?.client)
}

fn failed(error: &cubecl::server::ServerError) -> Error {
    Error::Device { reason: error.to_string() }
}
