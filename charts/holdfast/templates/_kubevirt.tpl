{{/* Parts of the KubeVirt webhook that stand in other objects. All are empty without it. */}}

{{- define "holdfast.kubevirtWebhook.on" -}}
{{- if and .Values.kubevirt.hook.enabled (dig "webhook" "enabled" true .Values.kubevirt) }}true{{ end }}
{{- end }}

{{/* The Secret to mount; empty if the controller makes the certificate itself. */}}
{{- define "holdfast.kubevirtWebhook.mounted" -}}
{{- $webhook := .Values.kubevirt.webhook | default dict -}}
{{- $certManager := dig "certManager" "enabled" false $webhook -}}
{{- if and $webhook.existingSecret $certManager }}
{{- fail "kubevirt.webhook.existingSecret and kubevirt.webhook.certManager.enabled exclude each other: two would bring the certificate" }}
{{- end }}
{{- if and $webhook.existingSecret (not $webhook.caBundle) }}
{{- fail "kubevirt.webhook.existingSecret needs kubevirt.webhook.caBundle: the API server must know whom to trust" }}
{{- end }}
{{- if $certManager }}holdfast-kubevirt-webhook-tls{{ else }}{{ $webhook.existingSecret | default "" }}{{ end }}
{{- end }}

{{- define "holdfast.kubevirtWebhook.args" -}}
{{- if include "holdfast.kubevirtWebhook.on" . -}}
- --kubevirt-webhook={{ include "holdfast.bindAddress" . }}:9443
- --kubevirt-hook-image={{ include "holdfast.image" (dict "root" $ "image" .Values.image) }}
- --kubevirt-hook-pull-policy={{ .Values.image.pullPolicy }}
{{- if include "holdfast.kubevirtWebhook.mounted" . }}
- --kubevirt-webhook-certificate=/kubevirt-webhook
{{- end }}
{{- end }}
{{- end }}

{{- define "holdfast.kubevirtWebhook.mount" -}}
{{- if and (include "holdfast.kubevirtWebhook.on" .) (include "holdfast.kubevirtWebhook.mounted" .) -}}
- {name: kubevirt-webhook, mountPath: /kubevirt-webhook, readOnly: true}
{{- end }}
{{- end }}

{{- define "holdfast.kubevirtWebhook.volume" -}}
{{- if and (include "holdfast.kubevirtWebhook.on" .) (include "holdfast.kubevirtWebhook.mounted" .) -}}
- name: kubevirt-webhook
  secret: {secretName: {{ include "holdfast.kubevirtWebhook.mounted" . }}}
{{- end }}
{{- end }}
