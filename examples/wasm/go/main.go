// A plugin in Go without an SDK: it adds a field to responses. The imports and exports are those of
// the proxy-wasm ABI 0.2.1, of which a plugin needs only what it uses.
package main

import "unsafe"

const responseHeaders = 2

//go:wasmimport env proxy_add_header_map_value
func addHeader(kind int32, key *byte, keyLength int32, value *byte, valueLength int32) int32

//go:wasmexport proxy_abi_version_0_2_1
func abiVersion() {}

// Memory that the host has filled is kept here until the host is done with it.
var given = map[uintptr][]byte{}

//go:wasmexport proxy_on_memory_allocate
func allocate(size int32) unsafe.Pointer {
	if size <= 0 {
		size = 1
	}
	memory := make([]byte, size)
	at := unsafe.Pointer(&memory[0])
	given[uintptr(at)] = memory
	return at
}

//go:wasmexport proxy_on_context_create
func contextCreate(context, parent int32) {}

//go:wasmexport proxy_on_vm_start
func vmStart(context, size int32) int32 { return 1 }

//go:wasmexport proxy_on_configure
func configure(context, size int32) int32 { return 1 }

//go:wasmexport proxy_on_response_headers
func responseHead(context, count, end int32) int32 {
	name, value := []byte("x-stamped-by"), []byte("go")
	addHeader(responseHeaders, &name[0], int32(len(name)), &value[0], int32(len(value)))
	return 0
}

//go:wasmexport proxy_on_done
func done(context int32) int32 {
	clear(given)
	return 1
}

//go:wasmexport proxy_on_delete
func deleted(context int32) {}

func main() {}
