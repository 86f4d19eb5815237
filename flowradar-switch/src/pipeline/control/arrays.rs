//! Counters, meters and registers.

use std::ops::Range;

use super::super::Pipeline;
use super::super::arrays::Meter;
use crate::runtime::{ArrayError, CounterData, MeterConfig};
use crate::{Timestamp, Value};

/// # Counters, meters, registers
impl Pipeline {
    /// One cell of an indirect counter.
    ///
    /// # Errors
    ///
    /// If there is no such counter or cell.
    pub fn read_counter(&self, counter: &str, index: usize) -> Result<CounterData, ArrayError> {
        let cells = self.read_counters(counter)?;
        let size = cells.len();
        cells
            .get(index)
            .copied()
            .ok_or_else(|| out_of_range("counter", counter, size, index))
    }

    /// All cells of an indirect counter.
    ///
    /// # Errors
    ///
    /// If there is no such counter.
    pub fn read_counters(&self, counter: &str) -> Result<&[CounterData], ArrayError> {
        Ok(&self.state.indirect_counters[self.counter_index(counter)?])
    }

    /// Sets one cell of an indirect counter.
    ///
    /// # Errors
    ///
    /// If there is no such counter or cell.
    pub fn write_counter(
        &mut self,
        counter: &str,
        index: usize,
        data: CounterData,
    ) -> Result<(), ArrayError> {
        let cells = self.counter_index(counter)?;
        let cells = &mut self.state.indirect_counters[cells];
        let size = cells.len();
        match cells.get_mut(index) {
            Some(cell) => {
                *cell = data;
                Ok(())
            }
            None => Err(out_of_range("counter", counter, size, index)),
        }
    }

    /// The configuration of one cell of an indirect meter; `None` if there is none.
    ///
    /// # Errors
    ///
    /// If there is no such meter or cell.
    pub fn read_meter(&self, meter: &str, index: usize) -> Result<Option<MeterConfig>, ArrayError> {
        let cells = &self.state.meters[self.meter_index(meter)?];
        match cells.get(index) {
            Some(cell) => Ok(cell.as_ref().map(|meter| meter.config)),
            None => Err(out_of_range("meter", meter, cells.len(), index)),
        }
    }

    /// How many cells an indirect meter has.
    ///
    /// # Errors
    ///
    /// If there is no such meter.
    pub fn meter_size(&self, meter: &str) -> Result<usize, ArrayError> {
        Ok(self.state.meters[self.meter_index(meter)?].len())
    }

    /// Configures one cell of an indirect meter; `None` lets everything pass as green.
    ///
    /// # Errors
    ///
    /// If there is no such meter or cell, or the rates make no sense.
    pub fn write_meter(
        &mut self,
        meter: &str,
        index: usize,
        config: Option<MeterConfig>,
        now: Timestamp,
    ) -> Result<(), ArrayError> {
        let cells = self.meter_index(meter)?;
        if config
            .as_ref()
            .is_some_and(|config| !Meter::is_valid(config))
        {
            return Err(ArrayError::MeterRates {
                name: meter.to_owned(),
            });
        }
        let cells = &mut self.state.meters[cells];
        let size = cells.len();
        match cells.get_mut(index) {
            Some(cell) => {
                *cell = config.map(|config| Box::new(Meter::new(config, now)));
                Ok(())
            }
            None => Err(out_of_range("meter", meter, size, index)),
        }
    }

    /// How many cells a register has.
    ///
    /// # Errors
    ///
    /// If there is no such register.
    pub fn register_size(&self, register: &str) -> Result<usize, ArrayError> {
        Ok(self.state.registers[self.register_index(register)?].len())
    }

    /// The cells of a register within a range.
    ///
    /// # Errors
    ///
    /// If there is no such register, or it ends before the range.
    pub fn read_registers(
        &self,
        register: &str,
        cells: Range<usize>,
    ) -> Result<Vec<Value>, ArrayError> {
        let array = &self.state.registers[self.register_index(register)?];
        if cells.end > array.len() {
            let last = cells.end - 1;
            return Err(out_of_range("register", register, array.len(), last));
        }
        Ok(cells.filter_map(|index| array.value(index)).collect())
    }

    /// Sets one cell of a register.
    ///
    /// # Errors
    ///
    /// If there is no such register or cell, or the value is too wide.
    pub fn write_register(
        &mut self,
        register: &str,
        index: usize,
        value: &Value,
    ) -> Result<(), ArrayError> {
        let (array, limbs) = self.register_value(register, value)?;
        let array = &mut self.state.registers[array];
        if !array.write_wide(index as u64, &limbs) {
            return Err(out_of_range("register", register, array.len(), index));
        }
        Ok(())
    }

    /// Sets all cells of a register.
    ///
    /// # Errors
    ///
    /// If there is no such register, or the value is too wide.
    pub fn fill_register(&mut self, register: &str, value: &Value) -> Result<(), ArrayError> {
        let (array, limbs) = self.register_value(register, value)?;
        let array = &mut self.state.registers[array];
        for index in 0..array.len() {
            array.write_wide(index as u64, &limbs);
        }
        Ok(())
    }

    fn register_value(
        &self,
        register: &str,
        value: &Value,
    ) -> Result<(usize, Vec<u64>), ArrayError> {
        let index = self.register_index(register)?;
        let array = &self.state.registers[index];
        let limbs = value
            .to_limbs(array.limbs())
            .filter(|_| value.bit_length() <= array.bits);
        let limbs = limbs.ok_or_else(|| ArrayError::Width {
            name: register.to_owned(),
            width: array.bits,
        })?;
        Ok((index, limbs))
    }

    fn counter_index(&self, name: &str) -> Result<usize, ArrayError> {
        let position = self
            .program
            .objects
            .counters
            .iter()
            .position(|array| array.name == name);
        position.ok_or_else(|| unknown("counter", name))
    }

    fn meter_index(&self, name: &str) -> Result<usize, ArrayError> {
        let mut meters = self.program.objects.meters.iter();
        let position = meters.position(|array| array.name == name && !array.is_direct);
        position.ok_or_else(|| unknown("meter", name))
    }

    fn register_index(&self, name: &str) -> Result<usize, ArrayError> {
        let position = self
            .program
            .objects
            .registers
            .iter()
            .position(|array| array.name == name);
        position.ok_or_else(|| unknown("register", name))
    }
}

fn out_of_range(what: &'static str, name: &str, size: usize, index: usize) -> ArrayError {
    ArrayError::OutOfRange {
        what,
        name: name.to_owned(),
        size,
        index,
    }
}

fn unknown(what: &'static str, name: &str) -> ArrayError {
    ArrayError::Unknown {
        what,
        name: name.to_owned(),
    }
}
