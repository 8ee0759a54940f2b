//! The three versions of the callbacks, which differ in nothing but what they add. `PreCloudInitIso` is not asked for, so it
//! changes nothing.

use super::{Hook, define, status};
use holdfast_proto::kubevirt::hooks::{v1alpha1, v1alpha2, v1alpha3};
use tonic::{Request, Response, Status};

fn defined(domain_xml: &[u8], instance: &[u8]) -> Result<Vec<u8>, Status> {
    define(domain_xml, instance).map_err(|error| status(&error))
}

#[tonic::async_trait]
impl v1alpha1::callbacks_server::Callbacks for Hook {
    async fn on_define_domain(
        &self,
        call: Request<v1alpha1::OnDefineDomainParams>,
    ) -> Result<Response<v1alpha1::OnDefineDomainResult>, Status> {
        let domain_xml = defined(&call.get_ref().domain_xml, &call.get_ref().vmi)?;
        Ok(Response::new(v1alpha1::OnDefineDomainResult { domain_xml }))
    }
}

#[tonic::async_trait]
impl v1alpha2::callbacks_server::Callbacks for Hook {
    async fn on_define_domain(
        &self,
        call: Request<v1alpha2::OnDefineDomainParams>,
    ) -> Result<Response<v1alpha2::OnDefineDomainResult>, Status> {
        let domain_xml = defined(&call.get_ref().domain_xml, &call.get_ref().vmi)?;
        Ok(Response::new(v1alpha2::OnDefineDomainResult { domain_xml }))
    }

    async fn pre_cloud_init_iso(
        &self,
        call: Request<v1alpha2::PreCloudInitIsoParams>,
    ) -> Result<Response<v1alpha2::PreCloudInitIsoResult>, Status> {
        let call = call.into_inner();
        Ok(Response::new(v1alpha2::PreCloudInitIsoResult {
            cloud_init_no_cloud_source: call.cloud_init_no_cloud_source,
            cloud_init_data: call.cloud_init_data,
        }))
    }
}

#[tonic::async_trait]
impl v1alpha3::callbacks_server::Callbacks for Hook {
    async fn on_define_domain(
        &self,
        call: Request<v1alpha3::OnDefineDomainParams>,
    ) -> Result<Response<v1alpha3::OnDefineDomainResult>, Status> {
        let domain_xml = defined(&call.get_ref().domain_xml, &call.get_ref().vmi)?;
        Ok(Response::new(v1alpha3::OnDefineDomainResult { domain_xml }))
    }

    async fn pre_cloud_init_iso(
        &self,
        call: Request<v1alpha3::PreCloudInitIsoParams>,
    ) -> Result<Response<v1alpha3::PreCloudInitIsoResult>, Status> {
        let call = call.into_inner();
        Ok(Response::new(v1alpha3::PreCloudInitIsoResult {
            cloud_init_no_cloud_source: call.cloud_init_no_cloud_source,
            cloud_init_data: call.cloud_init_data,
        }))
    }

    async fn shutdown(
        &self,
        _: Request<v1alpha3::ShutdownParams>,
    ) -> Result<Response<v1alpha3::ShutdownResult>, Status> {
        tracing::info!("The machine has ended");
        self.ended.notify_one();
        Ok(Response::new(v1alpha3::ShutdownResult {}))
    }
}
