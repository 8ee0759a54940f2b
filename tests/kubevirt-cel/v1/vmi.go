// Package v1 has the part of KubeVirt's VirtualMachineInstance that the Plugin looks at, under the same names: metadata is
// embedded, so that annotations are a field of the instance itself.
package v1

// ObjectMeta is Kubernetes' metadata.
type ObjectMeta struct {
	Name        string            `json:"name,omitempty"`
	Namespace   string            `json:"namespace,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// VolumeStatus tells of one volume.
type VolumeStatus struct {
	Name   string `json:"name"`
	Target string `json:"target"`
}

// VirtualMachineInstanceStatus is what KubeVirt observed.
type VirtualMachineInstanceStatus struct {
	VolumeStatus []VolumeStatus `json:"volumeStatus,omitempty"`
}

// VirtualMachineInstance is a running machine.
type VirtualMachineInstance struct {
	ObjectMeta `json:"metadata,omitempty"`
	Status     VirtualMachineInstanceStatus `json:"status,omitempty"`
}
