package venvoy

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

const code = `
import time

def add(args):
    return args["a"] + args["b"]

def nap(args):
    time.sleep(args)
    return "slept"

def fail(args):
    raise KeyError(args)

def leave(args):
    import os
    os._exit(7)
`

// start runs the worker that VENVOY_WORKER names, or `venvoy worker --stdio-json`.
func start(t *testing.T) (*Worker, context.Context) {
	t.Helper()
	command := []string{"venvoy", "worker", "--stdio-json"}
	if given := os.Getenv("VENVOY_WORKER"); given != "" {
		command = strings.Split(given, "\n")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	w, err := Start(ctx, command[0], command[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	if err := w.Define(ctx, code); err != nil {
		t.Fatal(err)
	}
	return w, ctx
}

func begin(t *testing.T, w *Worker, function string, args any) string {
	t.Helper()
	id, err := w.Call(function, args)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestACallGivesItsResultOnce(t *testing.T) {
	w, ctx := start(t)
	if w.Ready.Pid == 0 || w.Ready.PythonVersion == "" {
		t.Fatalf("%+v", w.Ready)
	}
	id := begin(t, w, "add", map[string]int{"a": 1, "b": 2})
	var sum int
	if err := w.Await(ctx, id, &sum); err != nil || sum != 3 {
		t.Fatal(sum, err)
	}
	if err := w.Await(ctx, id, &sum); !errors.Is(err, ErrUnknown) {
		t.Fatal(err)
	}
	if err := w.Ping(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestAnEndedContextDoesNotConsumeTheCall(t *testing.T) {
	w, ctx := start(t)
	id := begin(t, w, "nap", 0.5)
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	var text string
	if err := w.Await(short, id, &text); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if done, err := w.Result(id, &text); done || err != nil {
		t.Fatal(done, err)
	}
	if err := w.Await(ctx, id, &text); err != nil || text != "slept" {
		t.Fatal(text, err)
	}
}

func TestAnErrorIsThatOfPython(t *testing.T) {
	w, ctx := start(t)
	err := w.Await(ctx, begin(t, w, "fail", "x"), nil)
	var failed *PythonError
	if !errors.As(err, &failed) || failed.Type != "KeyError" || !strings.Contains(failed.Traceback, "in fail") {
		t.Fatal(err)
	}
	if err := w.Define(ctx, "x = = 1"); !errors.As(err, &failed) || failed.Type != "SyntaxError" {
		t.Fatal(err)
	}
}

func TestOneOfManyWaitersGetsTheResult(t *testing.T) {
	w, ctx := start(t)
	id := begin(t, w, "nap", 0.1)
	var group sync.WaitGroup
	results := make(chan error, 8)
	for range [8]int{} {
		group.Add(1)
		go func() { defer group.Done(); results <- w.Await(ctx, id, nil) }()
	}
	group.Wait()
	winners := 0
	for range [8]int{} {
		if err := <-results; err == nil {
			winners++
		} else if !errors.Is(err, ErrUnknown) {
			t.Fatal(err)
		}
	}
	if winners != 1 {
		t.Fatal(winners)
	}
}

func TestAResultThatDoesNotFitIsNotConsumed(t *testing.T) {
	w, ctx := start(t)
	id := begin(t, w, "nap", 0)
	var number int
	if err := w.Await(ctx, id, &number); err == nil {
		t.Fatal("a text became a number")
	}
	var text string
	if err := w.Await(ctx, id, &text); err != nil || text != "slept" {
		t.Fatal(text, err)
	}
}

func TestTheEndOfTheWorkerWakesEverybody(t *testing.T) {
	w, ctx := start(t)
	nap := begin(t, w, "nap", 60)
	begin(t, w, "leave", nil)
	if err := w.Await(ctx, nap, nil); err == nil || !strings.Contains(err.Error(), "exit status 7") {
		t.Fatal(err)
	}
	if _, err := w.Call("add", nil); err == nil {
		t.Fatal("a call of a worker that is gone")
	}
	w, ctx = start(t)
	nap = begin(t, w, "nap", 60)
	go func() { time.Sleep(50 * time.Millisecond); w.Close() }()
	if err := w.Await(ctx, nap, nil); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAWorkerThatCannotStartSaysWhy(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := Start(ctx, "/no/such/program"); err == nil {
		t.Fatal("a program that is not there has started")
	}
	if _, err := Start(ctx, "false"); err == nil || !strings.Contains(err.Error(), "exit status 1") {
		t.Fatal(err)
	}
}
