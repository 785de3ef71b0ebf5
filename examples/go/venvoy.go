// Package venvoy calls Python functions from Go, over the JSON frames of docs/protocol.md.
// Copy this file; it needs the standard library only.
package venvoy

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"sync"
)

// ErrUnknown says that there is no call of this id, or that somebody has taken its result.
var ErrUnknown = errors.New("venvoy: unknown call")

// ErrClosed says that Close has been called.
var ErrClosed = errors.New("venvoy: the worker is closed")

// PythonError is what a Python function raised.
type PythonError struct {
	Type      string `json:"errorType"`
	Message   string `json:"errorMessage"`
	Traceback string `json:"traceback"`
}

func (e *PythonError) Error() string { return e.Type + ": " + e.Message }

// Ready is what a worker says of itself.
type Ready struct {
	ProtocolVersion int    `json:"protocolVersion"`
	PythonVersion   string `json:"pythonVersion"`
	Pid             int    `json:"pid"`
	MaxWorkers      int    `json:"maxWorkers"`
}

type frame struct {
	Type   string          `json:"type"`
	CallID string          `json:"callID"`
	OpID   string          `json:"opID"`
	Ok     bool            `json:"ok"`
	Result json.RawMessage `json:"result"`
	PythonError
	Ready
}

type call struct {
	done   chan struct{} // closed when the two below are there
	result json.RawMessage
	err    error
}

func (c *call) finish(result json.RawMessage, err error) {
	c.result, c.err = result, err
	close(c.done)
}

// Worker is a Python process.
type Worker struct {
	Ready Ready

	command *exec.Cmd
	stdin   io.WriteCloser
	exited  chan struct{}

	writing sync.Mutex // one frame at a time

	mutex   sync.Mutex // guards what follows
	calls   map[string]*call
	pings   []*call
	count   uint64
	closing bool
	failure error // why nothing more can be asked
}

// Start runs a worker, as in Start(ctx, "venvoy", "worker", "--with", "numpy", "--stdio-json"), and returns when it is ready.
func Start(ctx context.Context, name string, arguments ...string) (*Worker, error) {
	w := &Worker{command: exec.Command(name, arguments...), exited: make(chan struct{}), calls: map[string]*call{}}
	w.command.Stderr = os.Stderr
	var err error
	if w.stdin, err = w.command.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := w.command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	ready := &call{done: make(chan struct{})}
	w.calls[""] = ready // the id of frames that have none
	if err := w.command.Start(); err != nil {
		return nil, err
	}
	go w.read(bufio.NewReader(stdout))
	select {
	case <-ready.done:
		err = ready.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		w.Close()
		return nil, err
	}
	return w, json.Unmarshal(ready.result, &w.Ready)
}

// Define runs Python code, whose functions can be called afterwards.
func (w *Worker) Define(ctx context.Context, code string) error {
	id, err := w.ask(map[string]any{"type": "define", "code": code}, "opID")
	if err != nil {
		return err
	}
	return w.Await(ctx, id, nil)
}

// Call sends a call of a function with one argument, and returns its id at once.
func (w *Worker) Call(function string, args any) (string, error) {
	return w.ask(map[string]any{"type": "call", "func": function, "args": args}, "callID")
}

// Await waits for a call, puts its result into out, unless that is nil, and consumes it.
//
// When ctx ends first its error is returned, the call goes on, and Await may be called again. Of several that wait for
// one call, one gets its result, the others ErrUnknown.
func (w *Worker) Await(ctx context.Context, id string, out any) error {
	w.mutex.Lock()
	c, failure := w.calls[id], w.failure
	w.mutex.Unlock()
	if c == nil {
		return cmp(failure, ErrUnknown)
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	_, err := w.take(id, c, out)
	return err
}

// Result returns false while a call runs; else true, having done as Await does.
func (w *Worker) Result(id string, out any) (bool, error) {
	w.mutex.Lock()
	c, failure := w.calls[id], w.failure
	w.mutex.Unlock()
	if c == nil {
		return true, cmp(failure, ErrUnknown)
	}
	select {
	case <-c.done:
		return w.take(id, c, out)
	default:
		return false, nil
	}
}

// Cancel asks a call to stop; its end is for Await to tell.
func (w *Worker) Cancel(id string) error {
	return w.send(map[string]any{"type": "cancel", "callID": id})
}

// Ping returns when the worker has answered.
func (w *Worker) Ping(ctx context.Context) error {
	c := &call{done: make(chan struct{})}
	w.mutex.Lock()
	if w.failure != nil {
		defer w.mutex.Unlock()
		return w.failure
	}
	w.pings = append(w.pings, c)
	w.mutex.Unlock()
	if err := w.send(map[string]any{"type": "ping"}); err != nil {
		return err
	}
	select {
	case <-c.done:
		return c.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close ends the worker at once and wakes everybody who waits; it may be called again.
func (w *Worker) Close() error {
	w.mutex.Lock()
	w.closing = true
	w.mutex.Unlock()
	w.stdin.Close()
	<-w.exited
	return nil
}

func cmp(first, second error) error {
	if first != nil {
		return first
	}
	return second
}

// take consumes a call that is done; a result that does not fit into out is not consumed.
func (w *Worker) take(id string, c *call, out any) (bool, error) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if w.calls[id] != c {
		return true, ErrUnknown
	}
	if c.err == nil && out != nil {
		if err := json.Unmarshal(c.result, out); err != nil {
			return true, err
		}
	}
	delete(w.calls, id)
	return true, c.err
}

func (w *Worker) ask(message map[string]any, idName string) (string, error) {
	w.mutex.Lock()
	if w.failure != nil {
		defer w.mutex.Unlock()
		return "", w.failure
	}
	w.count++
	id := idName + "-" + strconv.FormatUint(w.count, 10)
	w.calls[id] = &call{done: make(chan struct{})}
	w.mutex.Unlock()
	message[idName] = id
	if err := w.send(message); err != nil {
		w.mutex.Lock()
		delete(w.calls, id)
		w.mutex.Unlock()
		return "", err
	}
	return id, nil
}

func (w *Worker) send(message map[string]any) error {
	body, err := json.Marshal(message)
	if err != nil {
		return err
	}
	data := append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body))), body...)
	w.writing.Lock()
	defer w.writing.Unlock()
	_, err = w.stdin.Write(data)
	return err
}

func (w *Worker) read(stdout *bufio.Reader) {
	var head [4]byte
	for {
		if _, err := io.ReadFull(stdout, head[:]); err != nil {
			break
		}
		body := make([]byte, binary.BigEndian.Uint32(head[:]))
		if _, err := io.ReadFull(stdout, body); err != nil {
			break
		}
		var f frame
		if json.Unmarshal(body, &f) == nil {
			w.handle(&f, body)
		}
	}
	w.end(w.command.Wait())
}

func (w *Worker) handle(f *frame, body []byte) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	switch f.Type {
	case "ready":
		w.settle("", body, nil)
		delete(w.calls, "")
	case "pong":
		if len(w.pings) > 0 {
			w.pings[0].finish(nil, nil)
			w.pings = w.pings[1:]
		}
	case "call_done", "op_done", "error":
		var err error
		if !f.Ok {
			failed := f.PythonError
			err = &failed
		}
		w.settle(f.CallID+f.OpID, f.Result, err)
	}
}

func (w *Worker) settle(id string, result json.RawMessage, err error) {
	c := w.calls[id]
	if c == nil {
		return
	}
	select {
	case <-c.done: // once only
	default:
		c.finish(result, err)
	}
}

func (w *Worker) end(status error) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.failure = ErrClosed
	if !w.closing {
		w.failure = fmt.Errorf("venvoy: the worker ended: %w", cmp(status, io.EOF))
	}
	for id := range w.calls { // what is done stays, to be fetched
		w.settle(id, nil, w.failure)
	}
	for _, ping := range w.pings {
		ping.finish(nil, w.failure)
	}
	w.pings = nil
	close(w.exited)
}
