//! Runs an [`AsyncOperator`]: requests off the worker's thread, answers back in their tick.
//!
//! A tick is not closed before all its answers are back, so the operator holds its tick's capability that long, and a
//! slow service holds back the sources through the ticks in flight.

use crate::error::{Error, Result};
use crate::operator::{AsyncOperator, AsyncOptions, AsyncOrder, OpenTick, Operator, Output, Progress, TickClose};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Answers by the number of their request, as they come back.
type Answers = Arc<Mutex<Vec<(u64, Result<RecordBatch>)>>>;

pub(crate) struct AsyncRunner {
    operator: Arc<dyn AsyncOperator>,
    options: AsyncOptions,
    schema: SchemaRef,
    runtime: tokio::runtime::Handle,
    waker: Arc<dyn Fn() + Send + Sync>,
    answers: Answers,
    /// Answers that wait for earlier ones.
    waiting: BTreeMap<u64, RecordBatch>,
    sent: u64,
    emitted: u64,
    in_flight: usize,
}

impl AsyncRunner {
    pub(crate) fn new(
        operator: Arc<dyn AsyncOperator>,
        options: AsyncOptions,
        schema: SchemaRef,
        runtime: tokio::runtime::Handle,
        waker: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        Self {
            operator,
            options,
            schema,
            runtime,
            waker,
            answers: Arc::default(),
            waiting: BTreeMap::new(),
            sent: 0,
            emitted: 0,
            in_flight: 0,
        }
    }

    /// Takes the number of the next request.
    fn number(&mut self) -> u64 {
        self.sent += 1;
        self.sent - 1
    }

    fn send(&mut self, batch: RecordBatch, tick: &OpenTick) {
        let (number, timeout) = (self.number(), self.options.timeout);
        self.in_flight += 1;
        let request = self.operator.request(batch, tick.clone());
        let (answers, waker) = (Arc::clone(&self.answers), Arc::clone(&self.waker));
        self.runtime.spawn(async move {
            // A task of its own, so that a panic in the request comes back as an answer too.
            let answer = match tokio::time::timeout(timeout, tokio::spawn(request)).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(ended)) => Err(Error::operator(format!("a request ended without an answer: {ended}"))),
                Err(_) => Err(Error::operator(format!(
                    "a request was not answered within {timeout:?}; raise the timeout or look at the service"
                ))),
            };
            answers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((number, answer));
            waker();
        });
    }

    /// Emits the answers that are back and whose turn it is.
    fn receive(&mut self, out: &mut Output) -> Result<()> {
        let back = std::mem::take(&mut *self.answers.lock().unwrap_or_else(PoisonError::into_inner));
        for (number, answer) in back {
            self.in_flight -= 1;
            self.accept(number, answer?, out)?;
        }
        self.emit_in_order(out);
        Ok(())
    }

    fn accept(&mut self, number: u64, answer: RecordBatch, out: &mut Output) -> Result<()> {
        if answer.schema_ref().fields() != self.schema.fields() {
            return Err(Error::operator(
                "a request was answered with other columns than the operator declares",
            ));
        }
        match self.options.order {
            AsyncOrder::Unordered => out.emit(answer),
            AsyncOrder::Ordered => {
                self.waiting.insert(number, answer);
            }
        }
        Ok(())
    }

    fn emit_in_order(&mut self, out: &mut Output) {
        while let Some(answer) = self.waiting.remove(&self.emitted) {
            out.emit(answer);
            self.emitted += 1;
        }
    }
}

impl Operator for AsyncRunner {
    fn on_batch(&mut self, _input: usize, batch: &RecordBatch, tick: &OpenTick, out: &mut Output) -> Result<Progress> {
        self.receive(out)?;
        // An answer that waits for its turn takes a place like a request; it waits only behind one that is in flight, so
        // that something will wake this operator.
        if self.in_flight + self.waiting.len() >= self.options.capacity && self.in_flight > 0 {
            return Ok(Progress::More);
        }
        match self.operator.answer_now(batch, tick)? {
            Some(answer) => {
                let number = self.number();
                self.accept(number, answer, out)?;
                self.emit_in_order(out);
            }
            None => self.send(batch.clone(), tick),
        }
        Ok(Progress::Done)
    }

    fn on_close(&mut self, _close: &TickClose, out: &mut Output) -> Result<Progress> {
        self.receive(out)?;
        Ok(if self.in_flight == 0 {
            Progress::Done
        } else {
            Progress::More
        })
    }
}
