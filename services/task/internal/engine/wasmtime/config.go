//go:build cgo

package wasmtime

/*
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// The part of wasmtime's C API (config.h) that its Go package leaves out.
typedef struct wasmtime_pooling_allocation_config_t wasmtime_pooling_allocation_config_t;

extern wasmtime_pooling_allocation_config_t *wasmtime_pooling_allocation_config_new(void);
extern void wasmtime_pooling_allocation_config_delete(wasmtime_pooling_allocation_config_t *);
extern void wasmtime_pooling_allocation_config_max_unused_warm_slots_set(wasmtime_pooling_allocation_config_t *, uint32_t);
extern void wasmtime_pooling_allocation_config_linear_memory_keep_resident_set(wasmtime_pooling_allocation_config_t *, size_t);
extern void wasmtime_pooling_allocation_config_table_keep_resident_set(wasmtime_pooling_allocation_config_t *, size_t);
extern void wasmtime_pooling_allocation_config_total_memories_set(wasmtime_pooling_allocation_config_t *, uint32_t);
extern void wasmtime_pooling_allocation_config_total_tables_set(wasmtime_pooling_allocation_config_t *, uint32_t);
extern void wasmtime_pooling_allocation_config_total_stacks_set(wasmtime_pooling_allocation_config_t *, uint32_t);
extern void wasmtime_pooling_allocation_config_total_gc_heaps_set(wasmtime_pooling_allocation_config_t *, uint32_t);
extern void wasmtime_pooling_allocation_config_total_core_instances_set(wasmtime_pooling_allocation_config_t *, uint32_t);
extern void wasmtime_pooling_allocation_config_total_component_instances_set(wasmtime_pooling_allocation_config_t *, uint32_t);
extern void wasmtime_pooling_allocation_config_max_core_instance_size_set(wasmtime_pooling_allocation_config_t *, size_t);
extern void wasmtime_pooling_allocation_config_max_tables_per_module_set(wasmtime_pooling_allocation_config_t *, uint32_t);
extern void wasmtime_pooling_allocation_config_table_elements_set(wasmtime_pooling_allocation_config_t *, size_t);
extern void wasmtime_pooling_allocation_config_max_memories_per_module_set(wasmtime_pooling_allocation_config_t *, uint32_t);
extern void wasmtime_pooling_allocation_config_max_memory_size_set(wasmtime_pooling_allocation_config_t *, size_t);
extern void wasmtime_pooling_allocation_strategy_set(void *, const wasmtime_pooling_allocation_config_t *);

static void shallot_pool(void *config, size_t memory, size_t resident, uint32_t tables, size_t elements, size_t table_resident, size_t instance) {
	wasmtime_pooling_allocation_config_t *p = wasmtime_pooling_allocation_config_new();
	wasmtime_pooling_allocation_config_max_unused_warm_slots_set(p, 1);
	wasmtime_pooling_allocation_config_total_core_instances_set(p, 1);
	wasmtime_pooling_allocation_config_total_component_instances_set(p, 0);
	wasmtime_pooling_allocation_config_total_memories_set(p, 1);
	wasmtime_pooling_allocation_config_total_tables_set(p, tables);
	wasmtime_pooling_allocation_config_total_gc_heaps_set(p, 1);
	wasmtime_pooling_allocation_config_max_memories_per_module_set(p, 1);
	wasmtime_pooling_allocation_config_max_tables_per_module_set(p, tables);
	wasmtime_pooling_allocation_config_max_memory_size_set(p, memory);
	wasmtime_pooling_allocation_config_table_elements_set(p, elements);
	wasmtime_pooling_allocation_config_max_core_instance_size_set(p, instance);
	wasmtime_pooling_allocation_config_linear_memory_keep_resident_set(p, resident);
	wasmtime_pooling_allocation_config_table_keep_resident_set(p, table_resident);
	wasmtime_pooling_allocation_strategy_set(config, p);
	wasmtime_pooling_allocation_config_delete(p);
}
*/
import "C"

import (
	"errors"
	"reflect"
	"unsafe"

	"github.com/bytecodealliance/wasmtime-go/v44"

	"github.com/shallot-net/shallot/services/task/internal/engine"
)

const (
	// resident is how much of a program's memory stays mapped for the next program, zeroed: fresh pages cost a page fault each,
	// which on a virtual machine can be more than the whole rest of a small run.
	resident = 8 << 20
	// tables and instanceSize bound what a module may have besides memory.
	tables        = 16
	tableResident = 256 << 10
	instanceSize  = 64 << 20
)

// pool makes runs reuse one slot of memory and tables instead of mapping and unmapping theirs.
func pool(cfg *wasmtime.Config) error {
	t := reflect.TypeOf(*cfg)
	if t.NumField() != 1 || t.Field(0).Name != "_ptr" || t.Field(0).Type.Kind() != reflect.Pointer {
		return errors.New("wasmtime-go is not the version that this program was written for")
	}
	C.shallot_pool(*(*unsafe.Pointer)(unsafe.Pointer(cfg)), engine.MaxMemory, resident, tables, engine.MaxTableElements, tableResident, instanceSize)
	return nil
}
