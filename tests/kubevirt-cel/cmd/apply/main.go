// Command apply is one call of virt-launcher for a Plugin: a domain on standard input, what libvirt gets on standard output.
//
//	apply SPEC ANNOTATION VOLUME...
package main

import (
	"fmt"
	"io"
	"os"

	"libvirt.org/go/libvirtxml"

	kubevirtcel "holdfast.dev/tests/kubevirt-cel"
	v1 "holdfast.dev/tests/kubevirt-cel/v1"
)

func main() {
	if err := apply(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "apply:", err)
		os.Exit(1)
	}
}

func apply(words []string) error {
	if len(words) < 2 {
		return fmt.Errorf("usage: apply SPEC ANNOTATION VOLUME")
	}
	spec, err := kubevirtcel.Read(words[0])
	if err != nil {
		return err
	}
	vmi := &v1.VirtualMachineInstance{}
	vmi.Annotations = map[string]string{"holdfast.dev/volumes": words[1]}
	for _, name := range words[2:] {
		vmi.Status.VolumeStatus = append(vmi.Status.VolumeStatus, v1.VolumeStatus{Name: name})
	}
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	domain := &libvirtxml.Domain{}
	if err := domain.Unmarshal(string(text)); err != nil {
		return err
	}
	if err := spec.Apply(vmi, domain); err != nil {
		return err
	}
	xml, err := domain.Marshal()
	if err == nil {
		_, err = fmt.Println(xml)
	}
	return err
}
