// A module that is called by its exports has a main that nobody calls; TinyGo calls it.

//go:build wasip1 && !tinygo

package main

func init() { main() }
