/* What the kernel offers a program: sections, maps, helper functions. Numbers are those of linux/bpf.h. */
#ifndef CONVEY_HELPERS_H
#define CONVEY_HELPERS_H

#include <linux/bpf.h>
#include <linux/types.h>

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
/* A function of its own that the verifier looks at once, whatever its callers know: it takes numbers only, and finds the rest
 * in this CPU's scratch. For what is rare. */
#define APART __attribute__((noinline))

/* Fields of a map's definition, read by the loader from the types (BTF). */
#define FIELD_NUMBER(name, value) int(*name)[value]
#define FIELD_TYPE(name, type) typeof(type) *name
#define FIELD_MAPS(name, type) typeof(type) *name[]

/* The compiler must neither drop nor move a read of memory that another CPU writes. */
#define READ_ONCE(field) (*(const volatile typeof(field) *)&(field))

/* What is known of a value until here is forgotten: without CAP_PERFMON no number that is in a register is added to a pointer,
 * which the compiler would make of two constant ones. */
#define KEEP(pointer) asm volatile("" : "+r"(pointer))

/* The same of all memory. */
#define BARRIER() asm volatile("" ::: "memory")

static void *(*map_lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*map_update)(void *map, const void *key, const void *value,
			  __u64 flags) = (void *)BPF_FUNC_map_update_elem;
static long (*map_delete)(void *map, const void *key) = (void *)BPF_FUNC_map_delete_elem;
static long (*redirect_map)(void *map, __u64 key, __u64 flags) = (void *)BPF_FUNC_redirect_map;
static __u64 (*coarse_ns)(void) = (void *)BPF_FUNC_ktime_get_coarse_ns;
static long (*repeat)(__u32 times, void *step, void *context, __u64 flags) = (void *)BPF_FUNC_loop;
static __u64 (*buffer_length)(struct xdp_md *frame) = (void *)BPF_FUNC_xdp_get_buff_len;

/* Whether so much time has passed. What user space notes may be a tick ahead of this machine's coarse clock. */
INLINE int has_passed(__u64 time, __u64 since, __u64 now)
{
	return (__s64)(now - since) >= (__s64)time;
}

INLINE __u32 swap32(__u32 value)
{
	return __builtin_bswap32(value);
}

INLINE __u16 swap16(__u16 value)
{
	return __builtin_bswap16(value);
}

#endif
