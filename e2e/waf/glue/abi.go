// The SDK's way to its host when it is compiled by Go itself: the SDK binds imports and exports for TinyGo
// alone, and leaves a place for another host, which its own tests fill.

//go:build wasip1 && !tinygo

package internal

import "unsafe"

func init() { RegisterMockWasmHost(host{}) }

// What is not listed below the plugin does not use; those answer Ok and do nothing.
type host struct{ DefaultProxyWAMSHost }

// Pointers and lengths have 32 bits for the host, and 64 in Go.
type piece struct{ at, length uint32 }

func (p *piece) outs() (unsafe.Pointer, unsafe.Pointer) {
	return unsafe.Pointer(&p.at), unsafe.Pointer(&p.length)
}

func (p *piece) into(data **byte, size *int, status uint32) Status {
	*data, *size = (*byte)(unsafe.Pointer(uintptr(p.at))), int(p.length)
	return Status(status)
}

//go:wasmimport env proxy_log
func log(level uint32, line unsafe.Pointer, length uint32) uint32

func (host) ProxyLog(level LogLevel, line *byte, length int) Status {
	return Status(log(uint32(level), unsafe.Pointer(line), uint32(length)))
}

//go:wasmimport env proxy_get_property
func getProperty(path unsafe.Pointer, length uint32, at, size unsafe.Pointer) uint32

func (host) ProxyGetProperty(path *byte, length int, data **byte, size *int) Status {
	var found piece
	at, n := found.outs()
	return found.into(data, size, getProperty(unsafe.Pointer(path), uint32(length), at, n))
}

//go:wasmimport env proxy_set_property
func setProperty(path unsafe.Pointer, length uint32, value unsafe.Pointer, size uint32) uint32

func (host) ProxySetProperty(path *byte, length int, value *byte, size int) Status {
	return Status(setProperty(unsafe.Pointer(path), uint32(length), unsafe.Pointer(value), uint32(size)))
}

//go:wasmimport env proxy_send_local_response
func reply(status uint32, details unsafe.Pointer, detailsLength uint32, body unsafe.Pointer, bodyLength uint32, fields unsafe.Pointer, fieldsLength uint32, grpc int32) uint32

func (host) ProxySendLocalResponse(status uint32, details *byte, detailsLength int, body *byte, bodyLength int, fields *byte, fieldsLength int, grpc int32) Status {
	return Status(reply(status, unsafe.Pointer(details), uint32(detailsLength), unsafe.Pointer(body), uint32(bodyLength), unsafe.Pointer(fields), uint32(fieldsLength), grpc))
}

//go:wasmimport env proxy_get_header_map_value
func getField(kind uint32, name unsafe.Pointer, length uint32, at, size unsafe.Pointer) uint32

func (host) ProxyGetHeaderMapValue(kind MapType, name *byte, length int, data **byte, size *int) Status {
	var found piece
	at, n := found.outs()
	return found.into(data, size, getField(uint32(kind), unsafe.Pointer(name), uint32(length), at, n))
}

//go:wasmimport env proxy_get_header_map_pairs
func getFields(kind uint32, at, size unsafe.Pointer) uint32

func (host) ProxyGetHeaderMapPairs(kind MapType, data **byte, size *int) Status {
	var found piece
	at, n := found.outs()
	return found.into(data, size, getFields(uint32(kind), at, n))
}

//go:wasmimport env proxy_get_buffer_bytes
func getBuffer(kind, start, length uint32, at, size unsafe.Pointer) uint32

func (host) ProxyGetBufferBytes(kind BufferType, start, length int, data **byte, size *int) Status {
	var found piece
	at, n := found.outs()
	return found.into(data, size, getBuffer(uint32(kind), uint32(start), uint32(length), at, n))
}

//go:wasmimport env proxy_set_buffer_bytes
func setBuffer(kind, start, length uint32, data unsafe.Pointer, size uint32) uint32

func (host) ProxySetBufferBytes(kind BufferType, start, length int, data *byte, size int) Status {
	return Status(setBuffer(uint32(kind), uint32(start), uint32(length), unsafe.Pointer(data), uint32(size)))
}

//go:wasmimport env proxy_define_metric
func defineMetric(kind uint32, name unsafe.Pointer, length uint32, id unsafe.Pointer) uint32

func (host) ProxyDefineMetric(kind MetricType, name *byte, length int, id *uint32) Status {
	return Status(defineMetric(uint32(kind), unsafe.Pointer(name), uint32(length), unsafe.Pointer(id)))
}

//go:wasmimport env proxy_increment_metric
func incrementMetric(id uint32, by int64) uint32

func (host) ProxyIncrementMetric(id uint32, by int64) Status { return Status(incrementMetric(id, by)) }

//go:wasmexport proxy_abi_version_0_2_0
func abiVersion() {}

// Room that the host was given last, until Go has a pointer to it.
var given []byte

//go:wasmexport proxy_on_memory_allocate
func allocate(size uint32) unsafe.Pointer {
	given = make([]byte, size+1)
	return unsafe.Pointer(&given[0])
}

//go:wasmexport proxy_on_vm_start
func vmStart(id, size uint32) uint32 { return flag(bool(proxyOnVMStart(id, int(size)))) }

//go:wasmexport proxy_on_configure
func configure(id, size uint32) uint32 { return flag(bool(proxyOnConfigure(id, int(size)))) }

//go:wasmexport proxy_on_context_create
func create(id, parent uint32) { proxyOnContextCreate(id, parent) }

//go:wasmexport proxy_on_request_headers
func requestHeaders(id, count, ends uint32) uint32 {
	return uint32(proxyOnRequestHeaders(id, int(count), ends != 0))
}

//go:wasmexport proxy_on_request_body
func requestBody(id, size, ends uint32) uint32 {
	return uint32(proxyOnRequestBody(id, int(size), ends != 0))
}

//go:wasmexport proxy_on_response_headers
func responseHeaders(id, count, ends uint32) uint32 {
	return uint32(proxyOnResponseHeaders(id, int(count), ends != 0))
}

//go:wasmexport proxy_on_response_body
func responseBody(id, size, ends uint32) uint32 {
	return uint32(proxyOnResponseBody(id, int(size), ends != 0))
}

//go:wasmexport proxy_on_done
func done(id uint32) uint32 { return flag(proxyOnDone(id)) }

//go:wasmexport proxy_on_log
func logged(id uint32) { proxyOnLog(id) }

//go:wasmexport proxy_on_delete
func deleted(id uint32) { proxyOnDelete(id) }

func flag(is bool) uint32 {
	if is {
		return 1
	}
	return 0
}
