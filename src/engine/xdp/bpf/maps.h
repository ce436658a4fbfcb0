/* The maps. `services` and `ranges` (which addresses and ports are ours) are the broker's alone; the daemon is handed the
 * others. What is seldom full and seldom written takes its memory as it needs it. Sizes that depend on the configuration are set when they are loaded. */
#ifndef CONVEY_MAPS_H
#define CONVEY_MAPS_H

#include "structs.h"

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_HASH);
	FIELD_NUMBER(max_entries, 65536);
	FIELD_NUMBER(map_flags, BPF_F_NO_PREALLOC);
	FIELD_TYPE(key, struct endpoint);
	FIELD_TYPE(value, struct service);
} services SECTION(".maps");

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_HASH);
	FIELD_NUMBER(max_entries, 4096);
	FIELD_NUMBER(map_flags, BPF_F_NO_PREALLOC);
	FIELD_TYPE(key, struct endpoint);
	FIELD_TYPE(value, struct ranges);
} ranges SECTION(".maps");

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	FIELD_NUMBER(max_entries, 65536);
	FIELD_TYPE(key, __u32);
	FIELD_TYPE(value, struct target);
} targets SECTION(".maps");

struct table {
	FIELD_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	FIELD_NUMBER(max_entries, TABLE_ELEMENTS);
	FIELD_NUMBER(map_flags, BPF_F_MMAPABLE);
	FIELD_TYPE(key, __u32);
	FIELD_TYPE(value, __u64);
};

/* By the endpoint of a service's first port. */
struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_HASH_OF_MAPS);
	FIELD_NUMBER(max_entries, 4096);
	FIELD_NUMBER(map_flags, BPF_F_NO_PREALLOC);
	FIELD_TYPE(key, struct endpoint);
	FIELD_MAPS(values, struct table);
} tables SECTION(".maps");

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_LRU_HASH);
	FIELD_NUMBER(max_entries, 65536);
	FIELD_TYPE(key, struct flow_key);
	FIELD_TYPE(value, struct flow);
} flows SECTION(".maps");

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	FIELD_NUMBER(max_entries, REASONS);
	FIELD_TYPE(key, __u32);
	FIELD_TYPE(value, __u64);
} reasons SECTION(".maps");

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	FIELD_NUMBER(max_entries, PASSES);
	FIELD_TYPE(key, __u32);
	FIELD_TYPE(value, __u64);
} passes SECTION(".maps");

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	FIELD_NUMBER(max_entries, 65536);
	FIELD_TYPE(key, __u32);
	FIELD_TYPE(value, struct traffic);
} traffic SECTION(".maps");

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_HASH);
	FIELD_NUMBER(max_entries, 65536);
	FIELD_NUMBER(map_flags, BPF_F_NO_PREALLOC);
	FIELD_TYPE(key, struct address);
	FIELD_TYPE(value, __u32);
} addresses SECTION(".maps");

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_HASH);
	FIELD_NUMBER(max_entries, 256);
	FIELD_TYPE(key, __u32);
	FIELD_TYPE(value, struct interface);
} interfaces SECTION(".maps");

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_DEVMAP_HASH);
	FIELD_NUMBER(max_entries, 256);
	FIELD_NUMBER(key_size, 4);
	FIELD_NUMBER(value_size, 4);
} ports SECTION(".maps");

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	FIELD_NUMBER(max_entries, 1);
	FIELD_TYPE(key, __u32);
	FIELD_TYPE(value, struct settings);
} settings SECTION(".maps");

/* Passthrough flows, by their clients' packets. Nothing is ever evicted. */
struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_HASH);
	FIELD_NUMBER(max_entries, 65536);
	FIELD_NUMBER(map_flags, BPF_F_NO_PREALLOC);
	FIELD_TYPE(key, struct flow_key);
	FIELD_TYPE(value, struct forward);
} forwards SECTION(".maps");

/* The same by their servers' packets: an entry is the claim of the NAT port that it is sent to. */
struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_HASH);
	FIELD_NUMBER(max_entries, 65536);
	FIELD_NUMBER(map_flags, BPF_F_NO_PREALLOC);
	FIELD_TYPE(key, struct flow_key);
	FIELD_TYPE(value, struct reverse);
} reverses SECTION(".maps");

/* NAT ports that are claimed towards each server, and what there is of flows. Program and user space add. */
struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_ARRAY);
	FIELD_NUMBER(max_entries, CLAIMS);
	FIELD_NUMBER(map_flags, BPF_F_MMAPABLE);
	FIELD_TYPE(key, __u32);
	FIELD_TYPE(value, __u64);
} claims SECTION(".maps");

/* NAT ports of a server that a client network holds. */
struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_HASH);
	FIELD_NUMBER(max_entries, SHARES);
	FIELD_NUMBER(map_flags, BPF_F_NO_PREALLOC);
	FIELD_TYPE(key, struct share_key);
	FIELD_TYPE(value, __s64);
} shares SECTION(".maps");

/* By the number of the target. */
struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_HASH);
	FIELD_NUMBER(max_entries, 65536);
	FIELD_NUMBER(map_flags, BPF_F_NO_PREALLOC);
	FIELD_TYPE(key, __u32);
	FIELD_TYPE(value, struct source);
} sources SECTION(".maps");

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_HASH);
	FIELD_NUMBER(max_entries, 1024);
	FIELD_NUMBER(map_flags, BPF_F_NO_PREALLOC);
	FIELD_TYPE(key, struct origin);
	FIELD_TYPE(value, struct hop);
} moved SECTION(".maps");

/* What NAT ports are drawn by (SplitMix64). */
struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	FIELD_NUMBER(max_entries, 1);
	FIELD_TYPE(key, __u32);
	FIELD_TYPE(value, __u64);
} seeds SECTION(".maps");

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	FIELD_NUMBER(max_entries, 1);
	FIELD_TYPE(key, __u32);
	FIELD_TYPE(value, struct guard);
} guards SECTION(".maps");

struct {
	FIELD_NUMBER(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	FIELD_NUMBER(max_entries, 1);
	FIELD_TYPE(key, __u32);
	FIELD_TYPE(value, struct scratch);
} scratches SECTION(".maps");

static const __u32 FIRST = 0;

INLINE struct scratch *scratch_of_cpu(void)
{
	return map_lookup(&scratches, &FIRST);
}

#endif
