package kubevirtcel

import (
	"fmt"
	"os"
	"reflect"

	"libvirt.org/go/libvirtxml"
	"sigs.k8s.io/yaml"

	v1 "holdfast.dev/tests/kubevirt-cel/v1"
)

// Spec is a Plugin's spec, as far as the chart's uses it.
type Spec struct {
	Condition       string `json:"condition"`
	FailureStrategy string `json:"failureStrategy"`
	DomainHooks     []struct {
		CEL struct {
			Expression string `json:"expression"`
		} `json:"cel"`
	} `json:"domainHooks"`
}

// Read is the spec in a file; a field that is not known is an error.
func Read(path string) (Spec, error) {
	var spec Spec
	text, err := os.ReadFile(path)
	if err != nil {
		return spec, err
	}
	return spec, yaml.UnmarshalStrict(text, &spec)
}

// Apply is one call of virt-launcher: where the condition holds, each hook changes the domain.
func (s Spec) Apply(vmi *v1.VirtualMachineInstance, domain *libvirtxml.Domain) error {
	holds, err := evaluate(s.Condition, vmi, domain)
	if err != nil {
		return fmt.Errorf("condition: %w", err)
	}
	if holds.Value() != true {
		return nil
	}
	for _, hook := range s.DomainHooks {
		value, err := evaluate(hook.CEL.Expression, vmi, domain)
		if err != nil {
			return err
		}
		if err := merge(reflect.ValueOf(domain), value); err != nil {
			return err
		}
	}
	return nil
}
