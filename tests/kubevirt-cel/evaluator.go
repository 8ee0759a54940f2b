// Package kubevirtcel runs the chart's Plugin as KubeVirt 1.9 runs it: the same libraries at the same versions, native Go
// types under their Go names, a result that holds only what was written, and a merge that keeps all else.
package kubevirtcel

import (
	"fmt"
	"reflect"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/ext"
	"libvirt.org/go/libvirtxml"

	v1 "holdfast.dev/tests/kubevirt-cel/v1"
)

// KubeVirt gives up on an expression that costs more.
const costMax = 10_000_000

// written is a struct literal of an expression: the fields that stand there, and no others.
type written struct {
	name   string
	fields map[string]ref.Val
}

func (w *written) Type() ref.Type { return types.NewObjectType(w.name) }
func (w *written) Value() any     { return w }
func (w *written) Equal(ref.Val) ref.Val {
	return types.NewErr("%s cannot be compared", w.name)
}
func (w *written) ConvertToNative(reflect.Type) (any, error) {
	return nil, fmt.Errorf("%s is merged, never converted", w.name)
}
func (w *written) ConvertToType(t ref.Type) ref.Val {
	return types.NewErr("%s is no %s", w.name, t.TypeName())
}

// literals makes struct literals into written ones and leaves all else to the native types.
type literals struct{ types.Provider }

func (literals) NewValue(name string, fields map[string]ref.Val) ref.Val {
	return &written{name, fields}
}

func environment() (*cel.Env, error) {
	native := ext.NativeTypes(
		reflect.TypeOf(&libvirtxml.Domain{}), reflect.TypeOf(&v1.VirtualMachineInstance{}))
	base, err := cel.NewEnv(native, cel.Container("libvirtxml"))
	if err != nil {
		return nil, err
	}
	return base.Extend(
		cel.CustomTypeProvider(literals{base.CELTypeProvider()}),
		cel.Variable("vmi", cel.ObjectType("v1.VirtualMachineInstance")),
		cel.Variable("domainSpec", cel.ObjectType("libvirtxml.Domain")))
}

// evaluate is an expression's value for a machine.
func evaluate(text string, vmi *v1.VirtualMachineInstance, domain *libvirtxml.Domain) (ref.Val, error) {
	env, err := environment()
	if err != nil {
		return nil, err
	}
	tree, issues := env.Compile(text)
	if issues.Err() != nil {
		return nil, fmt.Errorf("the expression does not compile: %w", issues.Err())
	}
	program, err := env.Program(tree, cel.CostLimit(costMax))
	if err != nil {
		return nil, err
	}
	value, _, err := program.Eval(map[string]any{"vmi": vmi, "domainSpec": domain})
	return value, err
}

// merge writes what stands in a literal into a Go struct, null as the zero value; lists are replaced.
func merge(into reflect.Value, from ref.Val) error {
	literal, isLiteral := from.(*written)
	switch {
	case from == types.NullValue:
		into.SetZero()
		return nil
	case into.Kind() == reflect.Pointer && isLiteral:
		if into.IsNil() {
			into.Set(reflect.New(into.Type().Elem()))
		}
		return merge(into.Elem(), from)
	case isLiteral:
		for name, value := range literal.fields {
			field := into.FieldByName(name)
			if !field.IsValid() {
				return fmt.Errorf("%s has no field %s", literal.name, name)
			}
			if err := merge(field, value); err != nil {
				return fmt.Errorf("%s.%s: %w", literal.name, name, err)
			}
		}
		return nil
	case into.Kind() == reflect.Slice:
		return mergeList(into, from)
	case into.Kind() == reflect.Pointer:
		made := reflect.New(into.Type().Elem())
		into.Set(made)
		return merge(made.Elem(), from)
	}
	native, err := from.ConvertToNative(into.Type())
	if err == nil {
		into.Set(reflect.ValueOf(native))
	}
	return err
}

func mergeList(into reflect.Value, from ref.Val) error {
	list, ok := from.(traits.Lister)
	if !ok {
		return fmt.Errorf("%s is no list", from.Type().TypeName())
	}
	made := reflect.MakeSlice(into.Type(), 0, 0)
	for each := list.Iterator(); each.HasNext() == types.True; {
		item := reflect.New(into.Type().Elem()).Elem()
		if err := merge(item, each.Next()); err != nil {
			return err
		}
		made = reflect.Append(made, item)
	}
	into.Set(made)
	return nil
}
