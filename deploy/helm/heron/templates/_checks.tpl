{{- /* What no schema can say: values that contradict each other. Renders nothing. */ -}}
{{- define "heron.check" -}}
{{- $v := .Values -}}
{{- $full := include "heron.fullname" . -}}
{{- if not (or $v.router.enabled $v.redis.enabled $v.powerFeed.enabled $v.sites) -}}
{{- fail "nothing is enabled: set router.enabled, redis.enabled, powerFeed.enabled or sites" -}}
{{- end -}}
{{- if gt (len $full) 40 -}}
{{- fail (printf "the name %q is too long for what is named after it (at most 40 characters): set fullnameOverride" $full) -}}
{{- end -}}
{{- if and $v.redis.enabled $v.redis.url -}}
{{- fail "redis.url is for a Redis of your own: leave it out, or set redis.enabled to false" -}}
{{- end -}}
{{- if contains "@" $v.redis.url -}}
{{- fail "redis.url has a password in it, which does not belong in values: put the whole URL into existingSecret under the key redis-url" -}}
{{- end -}}
{{- if and (not $v.router.enabled) (or $v.powerFeed.enabled $v.sites) (not $v.existingSecret) -}}
{{- fail "existingSecret is missing: without the router here, sites and feed need the site-token that the routers show (and redis-url, unless redis.url is given); copy it from where they run" -}}
{{- end -}}
{{- if not (or $v.redis.enabled $v.redis.url $v.existingSecret) -}}
{{- fail "redis.enabled is false: name your own in redis.url, or in existingSecret under the key redis-url" -}}
{{- end -}}
{{- if and $v.monitoring.enabled $v.networkPolicy.enabled (not $v.networkPolicy.operationsFrom) -}}
{{- fail "monitoring.enabled: say in networkPolicy.operationsFrom where your Prometheus runs, or it reaches nothing" -}}
{{- end -}}
{{- if and $v.router.ingress.enabled (not $v.router.ingress.host) -}}
{{- fail "router.ingress.host is missing" -}}
{{- end -}}
{{- if and $v.router.httpRoute.enabled (not $v.router.httpRoute.parentRefs) -}}
{{- fail "router.httpRoute.parentRefs is missing: name your gateway" -}}
{{- end -}}
{{- range $name, $_ := $v.files -}}
{{- if eq $name "fleet.toml" -}}{{- fail "files: fleet.toml is the chart's own" -}}{{- end -}}
{{- end -}}
{{- if and $v.powerFeed.enabled (not $v.powerFeed.config.farms) -}}
{{- fail "powerFeed.config.farms is missing: which farm feeds which site? (docs/power_feed.md)" -}}
{{- end -}}
{{- $fed := list -}}
{{- range (default list $v.powerFeed.config.farms) -}}
{{- if .site_id -}}{{- $fed = append $fed .site_id -}}{{- end -}}
{{- range .sites -}}{{- $fed = append $fed .site_id -}}{{- end -}}
{{- end -}}
{{- range $name := keys $v.sites | sortAlpha -}}
{{- $site := include "heron.site" (list $ $name) | fromJson -}}
{{- $at := printf "sites.%s" $name -}}
{{- $engine := default (dict) $site.config.engine -}}
{{- if gt (len (printf "%s-site-%s" $full $name)) 52 -}}
{{- fail (printf "%s: the name %s-site-%s is longer than 52 characters, which a StatefulSet cannot have: set a shorter fullnameOverride" $at $full $name) -}}
{{- end -}}
{{- if not $site.config.farm_id -}}{{- fail (printf "%s.config.farm_id is missing: which farm gives it power?" $at) -}}{{- end -}}
{{- if not $engine.kind -}}{{- fail (printf "%s.config.engine.kind is missing: vllm, external or emulated" $at) -}}{{- end -}}
{{- if hasKey $engine "engine_api_key" -}}
{{- fail (printf "%s.config.engine.engine_api_key: a secret does not belong in a ConfigMap: keep it in a Secret, and set HERON_SITE_ENGINE__ENGINE_API_KEY from it in %s.extraEnv" $at $at) -}}
{{- end -}}
{{- if and (not $site.config.ingress_url) (not $v.router.enabled) -}}
{{- fail (printf "%s.config.ingress_url is missing: the router is not in this release; give the address at which it reaches the site, such as http://10.8.0.7:8101" $at) -}}
{{- end -}}
{{- if and (not $v.router.enabled) $v.networkPolicy.enabled (not $v.networkPolicy.sitesFrom) -}}
{{- fail "networkPolicy.sitesFrom is missing: the router is not in this release; say from where it comes, or nothing reaches the sites" -}}
{{- end -}}
{{- if and (not $site.config.feed_url) (not $v.powerFeed.enabled) -}}
{{- fail (printf "%s.config.feed_url is missing: the power feed is not in this release" $at) -}}
{{- end -}}
{{- if and $v.powerFeed.enabled (not $site.config.feed_url) (not (has $name $fed)) -}}
{{- fail (printf "%s: no farm in powerFeed.config.farms feeds it (fed are: %s)" $at (join ", " $fed)) -}}
{{- end -}}
{{- if $site.lockClocks -}}
{{- if ne $engine.kind "vllm" -}}{{- fail (printf "%s.lockClocks is for engines of kind vllm" $at) -}}{{- end -}}
{{- if not $site.state.size -}}{{- fail (printf "%s.lockClocks needs state.size: the clocks to put back must outlive the pod" $at) -}}{{- end -}}
{{- if eq (default "" $engine.gpu_driver) "nvml-read-only" -}}{{- fail (printf "%s.lockClocks and engine.gpu_driver: nvml-read-only contradict each other" $at) -}}{{- end -}}
{{- else if and (eq $engine.kind "vllm") (eq (default "" $engine.gpu_driver) "nvml") -}}
{{- fail (printf "%s.config.engine.gpu_driver: nvml needs lockClocks: true, without which the driver refuses" $at) -}}
{{- end -}}
{{- end -}}
{{- end }}
